"""What each person has used, by day: for that person to see, and for nobody's bill."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from redis.asyncio import Redis

from workers import keys
from workers.contract import Event
from workers.redis_connection import mapped_errors

#: So many days are told; a day's record is kept a little longer.
DAYS = 30
_TTL_S = (DAYS + 1) * 86_400


@dataclass(frozen=True, slots=True)
class Used:
    """A sum over some time.

    Attributes:
        answers: Chat answers, complete or stopped.
        tokens: Written in them.
        pictures: Drawn.
        gpu_s: Computed for all of it.
    """

    answers: int = 0
    tokens: int = 0
    pictures: int = 0
    gpu_s: float = 0.0


class UsageRecords:
    """The records of one Redis.

    Args:
        redis: Connected client, ``decode_responses`` off.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def add(self, platform: str, user: str, event: Event) -> None:
        """Count a job that has ended; call it once for each."""
        if event.usage is None:
            return
        key = keys.personal_usage(platform, user, _today().isoformat())
        counts = {"pictures": len(event.images)} if event.images else {"answers": 1}
        counts["tokens"] = event.usage.completion_tokens
        with mapped_errors(self._redis):
            async with self._redis.pipeline(transaction=True) as pipeline:
                for name, count in counts.items():
                    pipeline.hincrby(key, name, count)
                pipeline.hincrbyfloat(key, "gpu_s", event.usage.gpu_s)
                pipeline.expire(key, _TTL_S)
                await pipeline.execute()

    async def today(self, platform: str, user: str) -> Used:
        """Since midnight UTC."""
        return await self._sum(platform, user, 1)

    async def lately(self, platform: str, user: str) -> Used:
        """The last ``DAYS`` days, today included."""
        return await self._sum(platform, user, DAYS)

    async def forget(self, platform: str, user: str) -> None:
        """Delete all of a person's records."""
        with mapped_errors(self._redis):
            await self._redis.delete(*_keys(platform, user, DAYS + 1))

    async def _sum(self, platform: str, user: str, days: int) -> Used:
        with mapped_errors(self._redis):
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in _keys(platform, user, days):
                    pipeline.hmget(key, "answers", "tokens", "pictures", "gpu_s")
                rows = await pipeline.execute()
        answers, tokens, pictures, gpu_s = (
            sum(float(value or 0) for value in column) for column in zip(*rows, strict=True)
        )
        return Used(int(answers), int(tokens), int(pictures), gpu_s)


def _today() -> dt.date:
    return dt.datetime.now(dt.UTC).date()


def _keys(platform: str, user: str, days: int) -> list[str]:
    today = _today()
    return [keys.personal_usage(platform, user, (today - dt.timedelta(days=back)).isoformat()) for back in range(days)]
