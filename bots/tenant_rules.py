"""What a tenant's configuration means for a prompt: where, who, how often, how long, and in whose voice."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from bots.image_prompt import ImagePrompt
from bots.quotas import quota_of
from bots.service import Prompt
from bots.settings import Settings
from bots.tenant_config import Ceilings, TenantConfig, TenantConfigs
from generation.moderation.policy import EffectivePolicy, Policy
from workers.contract import Kind, Quota
from workers.errors import RefusedError
from workers.redis_connection import mapped_errors
from workers.served_models import served_models


@dataclass(frozen=True, slots=True)
class Whence:
    """Where a prompt comes from, as far as configurations ask.

    Attributes:
        channels: Ids of the channel and of what it belongs to.
        roles: Ids of its author's roles.
        nsfw: Whether the platform marks the channel as not safe for work.
        exempt: Whether its author administers the tenant, so that no restriction of place or role applies.
    """

    channels: Collection[str] = ()
    roles: Collection[str] = ()
    nsfw: bool = False
    exempt: bool = False


class TenantRules:
    """Applies configurations.

    Args:
        redis: Connected client, ``decode_responses`` off.
        configs: The configurations.
        settings: The operator's own.
    """

    def __init__(self, redis: Redis, configs: TenantConfigs, settings: Settings) -> None:
        self._redis = redis
        self._configs = configs
        self._settings = settings

    async def ceilings(self) -> Ceilings:
        """What the operator allows, and which models run now.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with mapped_errors(self._redis):
            models = await served_models(self._redis, "chat")
        return Ceilings(
            max_answer_tokens=self._settings.conversation.max_answer_tokens,
            user_per_minute=self._settings.limits.chat.user.per_minute,
            models=tuple(models),
            moderation=self._settings.moderation.strictness,
            tiers=tuple(self._settings.tiers),
        )

    async def apply(self, prompt: Prompt | ImagePrompt, whence: Whence) -> Prompt | ImagePrompt:
        """The prompt as the tenant wants it.

        Raises:
            RefusedError: The tenant does not want it; it says why and, for a limit, when to come back.
            RedisUnavailableError: Redis is away.
        """
        config = await self._configs.of(prompt.tenant)
        _check_place(config, whence)
        if isinstance(prompt, ImagePrompt) and not config.images:
            raise RefusedError("images", math.inf, "Pictures are switched off here by an administrator.")
        kind: Kind = "image" if isinstance(prompt, ImagePrompt) else "chat"
        quota = quota_of(self._settings, config, kind, whence.roles)
        prompt = replace(prompt, policy=self._policy(config, whence), quota=quota)
        if isinstance(prompt, ImagePrompt):
            return prompt
        ceiling = config.max_answer_tokens or self._settings.conversation.max_answer_tokens
        options = prompt.options.model_copy(update={"max_new_tokens": min(prompt.options.max_new_tokens, ceiling)})
        persona = config.system_text(self._settings.conversation.persona)
        return replace(prompt, options=options, persona=persona, model=prompt.model or config.model or None)

    async def quota(self, tenant: str, roles: Collection[str]) -> Quota | None:
        """Which budgets hold for a person, to be shown beside what was used.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        return quota_of(self._settings, await self._configs.of(tenant), "chat", roles)

    async def supports(self, tenant: str, whence: Whence) -> bool:
        """Whether mentions there are answered from what the tenant knows."""
        config = await self._configs.of(tenant)
        return bool(set(config.support_channels) & set(whence.channels))

    def _policy(self, config: TenantConfig, whence: Whence) -> EffectivePolicy:
        """How the tenant wants this prompt moderated."""
        policy = config.policy or Policy(strictness=config.strictness(self._settings.moderation.strictness))
        return policy.at(nsfw=whence.nsfw, roles=list(whence.roles))


def _check_place(config: TenantConfig, whence: Whence) -> None:
    if whence.exempt:
        return
    if config.channels and not set(config.channels) & set(whence.channels):
        raise RefusedError("channel", math.inf, "I am not set up to answer in this channel.")
    if config.roles and not set(config.roles) & set(whence.roles):
        raise RefusedError("role", math.inf, "Here I only answer members with certain roles; ask an administrator.")
