"""What was posted where: so that after a restart the same message is edited and none is posted twice.

The road of a message: ``reserve`` its place in the job's sequence, post it with the place's nonce (platforms that know
nonces refuse a second one), ``posted`` with the id that the platform gave it, and from then on only edit it. A process
that dies between posting and ``posted`` leaves a reservation without an id: the next one sees ``reserved_before`` and
posts with the same nonce, or looks for the message where the platform has no nonces.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from bots.delivery.rollover import Cut
from workers import keys
from workers.redis_connection import mapped_errors

# KEYS: the record. ARGV: place, id of the message, seconds to keep the record.
_POSTED = """
local there = redis.call('HGET', KEYS[1], ARGV[1])
if there and there ~= '' and there ~= ARGV[2] then return there end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return ARGV[2]
"""
#: Longer than any platform lets a message of this kind be edited, and than results are kept.
DEFAULT_TTL_S = 2 * 86_400
_CUTS = "cuts"


@dataclass(frozen=True, slots=True)
class Place:
    """One message of a job's answer.

    Attributes:
        index: 0 for the first message, which begins as the placeholder.
        message_id: The platform's id, once it is known.
        reserved_before: Whether an earlier process may have posted it without living to tell.
        nonce: The same for the same place whoever asks; at most 25 characters.
        others: Ids of the job's other messages: none of them is the one that is looked for.
    """

    index: int
    message_id: str | None
    reserved_before: bool
    nonce: str
    others: frozenset[str] = frozenset()


class Ledger:
    """The record of one front-end.

    Args:
        redis: Connected client, ``decode_responses`` off.
        front_end: Whose record.
        ttl_s: How long a job's record is kept after its last change, in seconds.
    """

    def __init__(self, redis: Redis, front_end: str, ttl_s: int = DEFAULT_TTL_S) -> None:
        self._redis = redis
        self._front_end = front_end
        self._ttl_s = ttl_s
        self._posted = redis.register_script(_POSTED)

    async def reserve(self, job_id: str, index: int) -> Place:
        """Claim the place of a message before it is posted."""
        key = keys.posted(self._front_end, job_id)
        with mapped_errors(self._redis):
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hsetnx(key, str(index), "")
                pipeline.hgetall(key)
                pipeline.expire(key, self._ttl_s)
                created, fields, _ = await pipeline.execute()
        places = _places(fields)
        message_id = places.pop(index, None)
        name = f"{self._front_end}\0{job_id}\0{index}"
        nonce = hashlib.sha256(name.encode()).hexdigest()[:25]
        others = frozenset(each for each in places.values() if each)
        return Place(index, message_id, not created and not message_id, nonce, others)

    async def posted(self, job_id: str, index: int, message_id: str) -> str:
        """Record the id of a message right after it was posted.

        Returns:
            The id that counts: another one if a process that was taken for dead has posted there too, and first.
        """
        key = keys.posted(self._front_end, job_id)
        with mapped_errors(self._redis):
            counts = await self._posted(keys=[key], args=[str(index), message_id, self._ttl_s])
        return cast("bytes", counts).decode()

    async def places(self, job_id: str) -> dict[int, str | None]:
        """Ids of a job's messages by their index; None where only a reservation is known."""
        with mapped_errors(self._redis):
            fields = cast(dict[bytes, bytes], await self._redis.hgetall(keys.posted(self._front_end, job_id)))
        return _places(fields)

    async def cut(self, job_id: str, cuts: Sequence[Cut]) -> None:
        """Record where an answer is divided, before the message that goes on is posted."""
        await self._set(job_id, _CUTS, json.dumps([[cut.at, cut.digest] for cut in cuts]))

    async def cuts(self, job_id: str) -> list[Cut]:
        """Where an answer was divided."""
        with mapped_errors(self._redis):
            found = await self._redis.hget(keys.posted(self._front_end, job_id), _CUTS)
        return [Cut(at, digest) for at, digest in json.loads(found or b"[]")]

    async def deleted(self, job_id: str, index: int) -> None:
        """Record that a message is no more."""
        with mapped_errors(self._redis):
            await self._redis.hdel(keys.posted(self._front_end, job_id), str(index))

    async def finish(self, job_id: str) -> None:
        """Record that the final state is shown: a terminal event that comes again is only acknowledged."""
        await self._set(job_id, "final", "1")

    async def finished(self, job_id: str) -> bool:
        """Whether the final state is shown."""
        with mapped_errors(self._redis):
            return bool(await self._redis.hexists(keys.posted(self._front_end, job_id), "final"))

    async def forget(self, job_id: str) -> None:
        """Delete a job's record."""
        with mapped_errors(self._redis):
            await self._redis.delete(keys.posted(self._front_end, job_id))

    async def _set(self, job_id: str, field: str, value: str) -> None:
        key = keys.posted(self._front_end, job_id)
        with mapped_errors(self._redis):
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, field, value)
                pipeline.expire(key, self._ttl_s)
                await pipeline.execute()


def _places(fields: dict[bytes, bytes]) -> dict[int, str | None]:
    places = sorted((int(name), value) for name, value in fields.items() if name.isdigit())
    return {index: value.decode() or None for index, value in places}
