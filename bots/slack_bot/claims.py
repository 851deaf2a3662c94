"""Which job a message of the bot belongs to: what a thread under it continues, and whose it must not become."""

from __future__ import annotations

from redis.asyncio import Redis

from workers import keys
from workers.redis_connection import mapped_errors


class Claims:
    """The record of one front-end's messages.

    Args:
        redis: Connected client, ``decode_responses`` off.
        ttl_s: How long a message is known, in seconds; as long as conversations are.
    """

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    async def claim(self, tenant: str, channel: str, ts: str, job_id: str) -> None:
        """Record a message right after it was posted."""
        with mapped_errors(self._redis):
            await self._redis.set(keys.message_job(tenant, channel, ts), job_id, ex=self._ttl_s)

    async def job_of(self, tenant: str, channel: str, ts: str) -> str | None:
        """Whose message it is; None if it is none of ours or too old."""
        with mapped_errors(self._redis):
            job_id = await self._redis.get(keys.message_job(tenant, channel, ts))
        return job_id.decode() if isinstance(job_id, bytes) else None
