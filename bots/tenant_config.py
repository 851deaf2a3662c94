"""What a tenant's own administrators have decided, on top of the operator's settings and within them.

It is read for every prompt, so a change holds at once in all processes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis

from bots.handover import hours
from generation.moderation.policy import Policy
from workers import keys
from workers.errors import SettingsError
from workers.redis_connection import mapped_errors
from workers.served_models import not_served

Moderation = Literal["relaxed", "balanced", "strict"]
_LEVELS: tuple[Moderation, ...] = ("relaxed", "balanced", "strict")
_LISTED = 50
_LANGUAGE = re.compile(r"[^\W\d_][\w -]{1,29}")


class TenantConfig(BaseModel):
    """One tenant's; what is empty or None is left to the operator.

    Attributes:
        persona: System text of new conversations.
        images: Whether pictures may be drawn.
        model: Which chat model, among those that the operator runs.
        languages: In which languages answers may be written; empty for any.
        max_answer_tokens: Longest answer.
        user_per_minute: Prompts a minute of one user, on average.
        channels: Ids of the channels in which the bot answers; empty for all.
        roles: Ids of the roles whose members it answers; empty for everybody.
        moderation: How strict, never laxer than the operator; None for as strict.
        policy: Everything else about moderation, in place of ``moderation``; set with ``palaver moderation set``.
        threads: Whether a mention in a channel is answered in a thread of its own.
        support_channels: Ids of the channels in which mentions are answered from knowledge instead of by the model.
        team_channel: Id of the channel in which people take over from the bot; empty for no hand-over.
        handover_topics: Words that only people answer.
        working_hours: When people are there, such as ``Mon-Fri 09:00-17:00 Europe/Berlin``; empty for always.
        appeals_channel: Id of the channel in which moderators read appeals.
        user_day_gpu_s: Most GPU time of one user in a day, where the operator allows more.
        user_month_gpu_s: And in a month.
        tiers: By id of a role, the operator's tier that its members belong to.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    persona: str = Field(default="", max_length=3_000)
    images: bool = True
    model: str = Field(default="", max_length=200)
    languages: tuple[str, ...] = Field(default=(), max_length=10)
    max_answer_tokens: int | None = Field(default=None, ge=16)
    user_per_minute: float | None = Field(default=None, gt=0)
    channels: tuple[str, ...] = Field(default=(), max_length=_LISTED)
    roles: tuple[str, ...] = Field(default=(), max_length=_LISTED)
    moderation: Moderation | None = None
    policy: Policy | None = None
    threads: bool = False
    support_channels: tuple[str, ...] = Field(default=(), max_length=_LISTED)
    team_channel: str = Field(default="", max_length=40)
    handover_topics: tuple[str, ...] = Field(default=(), max_length=_LISTED)
    working_hours: str = Field(default="", max_length=80)
    appeals_channel: str = Field(default="", max_length=40)
    user_day_gpu_s: float | None = Field(default=None, gt=0, le=1e9)
    user_month_gpu_s: float | None = Field(default=None, gt=0, le=1e9)
    tiers: dict[str, str] = Field(default_factory=dict, max_length=_LISTED)

    def strictness(self, operators: Moderation) -> Moderation:
        """How strict prompts are taken: as the tenant wants, and at least as strict as the operator."""
        return max(self.moderation or operators, operators, key=_LEVELS.index)

    def system_text(self, default: str) -> str | None:
        """The system text of a conversation without one of its own; None if the operator's is meant."""
        languages = f"Answer only in {' or '.join(self.languages)}." if self.languages else ""
        if not self.persona and not languages:
            return None
        return f"{self.persona or default} {languages}".strip()


@dataclass(frozen=True, slots=True)
class Ceilings:
    """What the operator allows.

    Attributes:
        max_answer_tokens: Longest answer.
        user_per_minute: Prompts a minute of one user.
        models: Chat models that run now.
        moderation: How strict the operator is.
        tiers: Names of the tiers that roles can be given.
    """

    max_answer_tokens: int
    user_per_minute: float
    models: Sequence[str]
    moderation: Moderation
    tiers: Sequence[str] = ()


class TenantConfigs:
    """Those of all tenants of one Redis.

    Args:
        redis: Connected client, ``decode_responses`` off.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def of(self, tenant: str) -> TenantConfig:
        """A tenant's; the defaults if it has decided nothing, or what is kept is another release's."""
        with mapped_errors(self._redis):
            raw = await self._redis.get(keys.tenant_config(tenant))
        try:
            return TenantConfig.model_validate_json(raw) if raw else TenantConfig()
        except ValidationError:
            return TenantConfig()

    async def set(self, tenant: str, config: TenantConfig) -> None:
        """Decide."""
        with mapped_errors(self._redis):
            await self._redis.set(keys.tenant_config(tenant), config.model_dump_json())

    async def change(self, tenant: str, name: str, text: str | None, ceilings: Ceilings) -> TenantConfig:
        """Change one setting.

        Args:
            tenant: Whose.
            name: Which setting.
            text: As an administrator writes it; None for the operator's default.
            ceilings: What the operator allows.

        Returns:
            The whole configuration after the change.

        Raises:
            SettingsError: There is no such setting, or it does not take that; the message says what it takes.
        """
        known = [field for field in TenantConfig.model_fields if field != "policy"]
        if name not in known:
            raise SettingsError(f"There is no setting {name[:40]}; there are {', '.join(known)}.")
        value = TenantConfig.model_fields[name].default if text is None else _read(name, text.strip(), ceilings)
        with mapped_errors(self._redis):
            # Two administrators at once: neither's change is lost.
            config: TenantConfig = await self._redis.transaction(
                lambda pipeline: self._changed(pipeline, tenant, name, value),
                keys.tenant_config(tenant),
                value_from_callable=True,
            )
        return config

    async def _changed(self, pipeline: Any, tenant: str, name: str, value: object) -> TenantConfig:
        raw = await pipeline.get(keys.tenant_config(tenant))
        try:
            before = TenantConfig.model_validate_json(raw) if raw else TenantConfig()
        except ValidationError:
            before = TenantConfig()
        try:
            after = TenantConfig.model_validate({**before.model_dump(), name: value})
        except ValidationError as error:
            fault = error.errors(include_input=False, include_url=False, include_context=False)[0]
            raise SettingsError(f"{name} does not take that: {fault['msg'][:1].lower()}{fault['msg'][1:]}.") from None
        pipeline.multi()
        pipeline.set(keys.tenant_config(tenant), after.model_dump_json())
        return after


def _read(name: str, text: str, ceilings: Ceilings) -> object:
    readers: dict[str, Callable[[str, Ceilings], object]] = {
        "images": _switch,
        "threads": _switch,
        "model": _model,
        "languages": _languages,
        "max_answer_tokens": _tokens,
        "user_per_minute": _rate,
        "channels": _ids,
        "support_channels": _ids,
        "team_channel": _one_id,
        "handover_topics": _topics,
        "working_hours": _hours,
        "roles": _ids,
        "moderation": _level,
        "appeals_channel": _channel,
        "user_day_gpu_s": _budget,
        "user_month_gpu_s": _budget,
        "tiers": _tiers,
    }
    reader = readers.get(name)
    return reader(text, ceilings) if reader else text


def _level(text: str, ceilings: Ceilings) -> str:
    allowed = _LEVELS[_LEVELS.index(ceilings.moderation) :]
    if text.lower() not in allowed:
        raise SettingsError(f"Write {' or '.join(allowed)}; the operator allows nothing laxer.")
    return text.lower()


def _switch(text: str, _: Ceilings) -> bool:
    if text.lower() not in ("on", "off", "yes", "no", "true", "false"):
        raise SettingsError("Write on or off.")
    return text.lower() in ("on", "yes", "true")


def _model(text: str, ceilings: Ceilings) -> str:
    if text not in ceilings.models:
        raise SettingsError(not_served(text, list(ceilings.models)))
    return text


def _languages(text: str, _: Ceilings) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names or not all(_LANGUAGE.fullmatch(name) for name in names):
        raise SettingsError("Write languages by their names, with commas between: English, German.")
    return names


def _tokens(text: str, ceilings: Ceilings) -> int:
    highest = ceilings.max_answer_tokens
    if not text.isascii() or not text.isdigit() or not 16 <= int(text) <= highest:
        raise SettingsError(f"Write a number of tokens from 16 to {highest}.")
    return int(text)


def _rate(text: str, ceilings: Ceilings) -> float:
    highest = ceilings.user_per_minute
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= highest:
        raise SettingsError(f"Write a number of prompts a minute, above 0 and up to {highest:g}.")
    return value


def _budget(text: str, _: Ceilings) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1e9:
        raise SettingsError("Write a number of GPU-seconds above 0; the operator's own budget holds all the same.")
    return value


def _tiers(text: str, ceilings: Ceilings) -> dict[str, str]:
    found = dict(re.findall(r"([A-Z0-9]{9,20})\W{0,3}=\s*([\w-]{1,40})", text))
    if not ceilings.tiers:
        raise SettingsError("The operator has defined no tiers.")
    if not found or not set(found.values()) <= set(ceilings.tiers):
        raise SettingsError(f"Write a role and its tier, such as @helpers={ceilings.tiers[0]}, with commas between.")
    return found


def _channel(text: str, ceilings: Ceilings) -> str:
    found = _ids(text, ceilings)
    if len(found) != 1:
        raise SettingsError("Name one channel by mentioning it, such as #moderators.")
    return found[0]


def _ids(text: str, _: Ceilings) -> tuple[str, ...]:
    ids = tuple(dict.fromkeys(re.findall(r"[A-Z0-9]{9,20}", text)))
    if not ids:
        raise SettingsError("Name them by mentioning them, such as #general or @helpers.")
    return ids


def _one_id(text: str, _: Ceilings) -> str:
    found = _ids(text, _)
    if len(found) != 1:
        raise SettingsError("Name one channel by mentioning it, such as #support-team.")
    return found[0]


def _topics(text: str, _: Ceilings) -> tuple[str, ...]:
    return tuple(dict.fromkeys(each.strip() for each in re.split(r"[,，;；]", text) if each.strip()))


def _hours(text: str, _: Ceilings) -> str:
    try:
        hours.parse(text)
    except ValueError as error:
        raise SettingsError(f"Those are no working hours: {error}.") from None
    return text
