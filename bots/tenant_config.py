"""What a tenant's own administrators have decided, on top of the operator's settings."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from redis.asyncio import Redis

from workers import keys
from workers.redis_connection import mapped_errors


class TenantConfig(BaseModel):
    """One tenant's.

    Attributes:
        persona: System text of new conversations; empty for the operator's.
        images: Whether pictures may be drawn.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    persona: str = Field(default="", max_length=3_000)
    images: bool = True


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
