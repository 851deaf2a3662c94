"""Which jobs still owe somebody their final message, and which process sees to it.

A promise is made before its job is submitted and kept when the final message is shown. Between the two exactly one
process holds its lease and renews it; when that process dies or freezes, the lease runs out and another process, or the
same one after its restart, takes over. All times are the server's, so clocks of hosts need not agree.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

from pydantic import ValidationError
from redis.asyncio import Redis

from workers import keys
from workers.contract import ReplyTo
from workers.redis_connection import mapped_errors

#: Jobs' results are not kept for longer, so that nothing could be delivered later.
DEFAULT_TTL_S = 2 * 86_400

_log = logging.getLogger("palaver.delivery")

# KEYS: all promises, this promise, what was posted. ARGV: job, owner, lease in ms, reply, seconds to keep, 1 if only a
# promise that is not there is to be made.
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
if redis.call('HEXISTS', KEYS[3], 'final') == 1 then return 0 end
if ARGV[6] == '1' and redis.call('EXISTS', KEYS[2]) == 1 then return 0 end
local lease = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]) or 0)
if lease > now then return 0 end
redis.call('HSETNX', KEYS[2], 'reply', ARGV[4])
redis.call('HSET', KEYS[2], 'owner', ARGV[2])
redis.call('EXPIRE', KEYS[2], ARGV[5])
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('EXPIRE', KEYS[1], ARGV[5])
return 1
"""
# KEYS: all promises. ARGV: beginning of the promises' keys, owner, lease in ms, most promises to take.
_ADOPT = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local taken = {}
for _, job in ipairs(redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now, 'LIMIT', 0, ARGV[4])) do
  local reply = redis.call('HGET', ARGV[1] .. job, 'reply')
  if reply then
    redis.call('HSET', ARGV[1] .. job, 'owner', ARGV[2])
    redis.call('ZADD', KEYS[1], now + ARGV[3], job)
    taken[#taken + 1] = job
    taken[#taken + 1] = reply
  else
    redis.call('ZREM', KEYS[1], job)
  end
end
return taken
"""
# KEYS: all promises. ARGV: beginning of the promises' keys, owner, new lease in ms, jobs.
_RENEW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local lost = {}
for i = 4, #ARGV do
  if redis.call('HGET', ARGV[1] .. ARGV[i], 'owner') == ARGV[2] then
    redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
return lost
"""
# KEYS: all promises, this promise, what was posted. ARGV: job, seconds to keep the record of what was posted, owner.
_KEEP = """
local owner = redis.call('HGET', KEYS[2], 'owner')
if owner and owner ~= ARGV[3] then return 0 end
redis.call('HSET', KEYS[3], 'final', '1')
redis.call('EXPIRE', KEYS[3], ARGV[2])
redis.call('DEL', KEYS[2])
return redis.call('ZREM', KEYS[1], ARGV[1])
"""


@dataclass(frozen=True, slots=True)
class Promise:
    """A final message that this process now owes.

    Attributes:
        job_id: Whose.
        reply: Where it belongs.
    """

    job_id: str
    reply: ReplyTo


class Promises:
    """The promises of one front-end, as one process sees them.

    Args:
        redis: Connected client, ``decode_responses`` off.
        front_end: Whose.
        lease_s: How long after its last sign of life a process is taken for dead.
        ttl_s: How long a promise is remembered, and after it what was posted.
    """

    def __init__(self, redis: Redis, front_end: str, lease_s: float = 6.0, ttl_s: int = DEFAULT_TTL_S) -> None:
        self._redis = redis
        self._front_end = front_end
        self._owner = secrets.token_hex(8)
        self._ttl_s = ttl_s
        self.lease_s = lease_s
        self._take = redis.register_script(_TAKE)
        self._adopt = redis.register_script(_ADOPT)
        self._renew = redis.register_script(_RENEW)
        self._keep = redis.register_script(_KEEP)

    async def take(self, job_id: str, reply: ReplyTo, *, forgotten: bool = False) -> bool:
        """Promise a job's final message, or take over a promise whose owner is gone.

        Args:
            job_id: Whose.
            reply: Where it belongs.
            forgotten: Whether only to make a promise anew that a killed Redis has forgotten.

        Returns:
            Whether it is this process' to keep: False if it was kept already or somebody, maybe this process, is at it.
        """
        arguments: list[str | int] = [job_id, self._owner, self._lease_ms, reply.model_dump_json(), self._ttl_s]
        arguments.append(int(forgotten))
        with mapped_errors(self._redis):
            return bool(await self._take(keys=self._keys(job_id), args=arguments))

    async def adopt(self, count: int = 100) -> list[Promise]:
        """Take over promises that nobody sees to."""
        arguments: list[str | int] = [self._prefix, self._owner, self._lease_ms, count]
        with mapped_errors(self._redis):
            raw = await self._adopt(keys=[keys.promises(self._front_end)], args=arguments)
        taken = cast("list[bytes]", raw)
        promises = []
        for job_id, reply in zip(taken[::2], taken[1::2], strict=True):
            try:
                promises.append(Promise(job_id.decode(), ReplyTo.model_validate_json(reply)))
            except ValidationError:
                _log.warning("job %s: its reply handle is another release's; its lease runs out", job_id.decode())
        return promises

    async def renew(self, job_ids: Iterable[str]) -> set[str]:
        """Keep hold of promises; returns those that are somebody else's by now, or kept or dropped."""
        return await self._prolong(job_ids, self._lease_ms)

    async def postpone(self, job_id: str, pause_s: float) -> None:
        """Let go of a promise for now; any process takes it up again after a pause."""
        await self._prolong([job_id], round(pause_s * 1000))

    async def keep(self, job_id: str, ttl_s: int | None = None) -> bool:
        """The final message is shown.

        Nothing is recorded of a promise that another process has taken over: it may be showing an earlier state by now,
        and has to go on to the end.

        Args:
            job_id: Whose.
            ttl_s: How long that is to be known; None for as long as promises.

        Returns:
            Whether this is news: False if somebody has said so before, or it is another process' to say.
        """
        with mapped_errors(self._redis):
            return bool(await self._keep(keys=self._keys(job_id), args=[job_id, ttl_s or self._ttl_s, self._owner]))

    @property
    def _lease_ms(self) -> int:
        return round(self.lease_s * 1000)

    @property
    def _prefix(self) -> str:
        return keys.promise(self._front_end, "")

    def _keys(self, job_id: str) -> list[str]:
        posted = keys.posted(self._front_end, job_id)
        return [keys.promises(self._front_end), keys.promise(self._front_end, job_id), posted]

    async def _prolong(self, job_ids: Iterable[str], lease_ms: int) -> set[str]:
        wanted = list(job_ids)
        if not wanted:
            return set()
        arguments: list[str | int] = [self._prefix, self._owner, lease_ms, *wanted]
        with mapped_errors(self._redis):
            lost = await self._renew(keys=[keys.promises(self._front_end)], args=arguments)
        return {job_id.decode() for job_id in cast("list[bytes]", lost)}
