"""What was asked, kept for longer than results are: so that a button works a week later and a job can be shown again.

Records hold prompts. They belong to their user, expire by themselves, and are part of what is exported and deleted on
that user's wish.
"""

from __future__ import annotations

import time
from typing import cast

from pydantic import TypeAdapter, ValidationError
from redis.asyncio import Redis

from bots.image_prompt import ImagePrompt
from workers import keys
from workers.redis_connection import mapped_errors

DEFAULT_TTL_S = 30 * 86_400
#: Of one person; older ones are forgotten by the list, not by their buttons.
RECENT_KEPT = 50

_PROMPT = TypeAdapter(ImagePrompt)


class RequestRecords:
    """The image prompts of all front-ends of one Redis.

    Args:
        redis: Connected client, ``decode_responses`` off.
        ttl_s: How long a record is kept.
    """

    def __init__(self, redis: Redis, ttl_s: int = DEFAULT_TTL_S) -> None:
        self._redis = redis
        self._ttl_s = ttl_s

    async def keep(self, prompt: ImagePrompt) -> None:
        """Remember a prompt by its job."""
        recent = keys.recent(prompt.platform, prompt.user)
        with mapped_errors(self._redis):
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(keys.request_record(prompt.job_id), _PROMPT.dump_json(prompt), ex=self._ttl_s)
                pipeline.zadd(recent, {prompt.job_id: time.time()})
                pipeline.zremrangebyrank(recent, 0, -RECENT_KEPT - 1)
                pipeline.expire(recent, self._ttl_s)
                await pipeline.execute()

    async def find(self, job_id: str) -> ImagePrompt | None:
        """The prompt of a job; None if it is unknown, has expired, or was kept by a release that wrote it otherwise."""
        with mapped_errors(self._redis):
            raw = await self._redis.get(keys.request_record(job_id))
        try:
            return _PROMPT.validate_json(raw) if raw else None
        except ValidationError:
            return None

    async def recent(self, platform: str, user: str, count: int = 25) -> list[ImagePrompt]:
        """One person's latest prompts, newest first."""
        with mapped_errors(self._redis):
            raw = cast("list[bytes]", await self._redis.zrevrange(keys.recent(platform, user), 0, count - 1))
        found = [await self.find(job_id.decode()) for job_id in raw]
        return [prompt for prompt in found if prompt is not None]

    async def forget(self, job_id: str) -> None:
        """Delete a job's record."""
        with mapped_errors(self._redis):
            await self._redis.delete(keys.request_record(job_id))

    async def forget_user(self, platform: str, user: str) -> int:
        """Delete all that is kept of a person; returns how many records that were."""
        key = keys.recent(platform, user)
        with mapped_errors(self._redis):
            jobs = cast("list[bytes]", await self._redis.zrange(key, 0, -1))
            records = [keys.request_record(job_id.decode()) for job_id in jobs]
            return int(await self._redis.delete(key, *records)) - bool(jobs)
