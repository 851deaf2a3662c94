"""What a tenant's configuration means for a prompt: where, who, how often, how long, and in whose voice."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, replace

from redis.asyncio import Redis

from bots.image_prompt import ImagePrompt
from bots.service import Prompt
from bots.settings import Settings
from bots.tenant_config import Ceilings, TenantConfig, TenantConfigs
from generation.moderation.policy import EffectivePolicy, Policy
from workers import keys
from workers.admission import Allowance, Limit, admit
from workers.errors import RefusedError
from workers.redis_connection import mapped_errors

_BURST_MINUTES = 0.5


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

    @property
    def ceilings(self) -> Ceilings:
        """What the operator allows."""
        return Ceilings(
            max_answer_tokens=self._settings.conversation.max_answer_tokens,
            user_per_minute=self._settings.limits.chat.user.per_minute,
            models=(self._settings.chat.model,),
            moderation=self._settings.moderation.strictness,
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
        await self._check_rate(config, prompt)
        prompt = replace(prompt, policy=self._policy(config, whence))
        if isinstance(prompt, ImagePrompt):
            return prompt
        ceiling = config.max_answer_tokens or self._settings.conversation.max_answer_tokens
        options = prompt.options.model_copy(update={"max_new_tokens": min(prompt.options.max_new_tokens, ceiling)})
        return replace(prompt, options=options, persona=config.system_text(self._settings.conversation.persona))

    async def supports(self, tenant: str, whence: Whence) -> bool:
        """Whether mentions there are answered from what the tenant knows."""
        config = await self._configs.of(tenant)
        return bool(set(config.support_channels) & set(whence.channels))

    def _policy(self, config: TenantConfig, whence: Whence) -> EffectivePolicy:
        """How the tenant wants this prompt moderated."""
        policy = config.policy or Policy(strictness=config.strictness(self._settings.moderation.strictness))
        return policy.at(nsfw=whence.nsfw, roles=list(whence.roles))

    async def _check_rate(self, config: TenantConfig, prompt: Prompt | ImagePrompt) -> None:
        if config.user_per_minute is None:
            return
        burst = max(1, math.ceil(config.user_per_minute * _BURST_MINUTES))
        key = keys.limit("own", "user", f"{prompt.tenant}:{prompt.user}")
        limit = Limit(key, Allowance("user", config.user_per_minute, burst))
        with mapped_errors(self._redis):
            await admit(self._redis, f"{prompt.job_id}-own", [limit])


def _check_place(config: TenantConfig, whence: Whence) -> None:
    if whence.exempt:
        return
    if config.channels and not set(config.channels) & set(whence.channels):
        raise RefusedError("channel", math.inf, "I am not set up to answer in this channel.")
    if config.roles and not set(config.roles) & set(whence.roles):
        raise RefusedError("role", math.inf, "Here I only answer members with certain roles; ask an administrator.")
