"""Smaller requests that were offered in place of refused ones: kept until somebody takes them up, in any process."""

from __future__ import annotations

from dataclasses import replace

from pydantic import TypeAdapter
from redis.asyncio import Redis

from bots.delivery import wording
from bots.delivery.buttons import Button
from bots.image_prompt import ImagePrompt
from bots.refusals import StoppedError, TooCostlyError
from bots.service import Prompt
from generation.errors import GenerationError
from workers import keys
from workers.contract import ReplyTo
from workers.errors import JobNotFoundError, RedisUnavailableError, WorkersError
from workers.redis_connection import mapped_errors

#: What a budget has left changes soon.
TTL_S = 3_600
GONE = "This offer has run out, or was made to somebody else. Please ask again."

_CHAT: TypeAdapter[Prompt] = TypeAdapter(Prompt)
_IMAGE: TypeAdapter[ImagePrompt] = TypeAdapter(ImagePrompt)


class Offers:
    """Those of one Redis.

    Args:
        redis: Connected client, ``decode_responses`` off.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def keep(self, error: TooCostlyError) -> str:
        """Keep an offer for an hour; returns the job id that its button is to carry.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        prompt = error.smaller
        data = b"i" + _IMAGE.dump_json(prompt) if isinstance(prompt, ImagePrompt) else b"c" + _CHAT.dump_json(prompt)
        with mapped_errors(self._redis):
            await self._redis.set(keys.offer(prompt.user, prompt.job_id), data, ex=TTL_S)
        return prompt.job_id

    async def told(self, error: WorkersError | GenerationError, job_id: str) -> tuple[str, tuple[Button, ...]]:
        """What a person reads whose request was not taken, and what can be done about it.

        Args:
            error: Why it was not taken.
            job_id: Of the request; nothing if there was none yet.
        """
        text = wording.refusal(error)
        if isinstance(error, StoppedError) and job_id:
            return text, (Button("appeal", job_id),)
        if isinstance(error, TooCostlyError):
            try:
                kept = await self.keep(error)
            except RedisUnavailableError:
                return text, ()
            return f"{text} {wording.offer(error.told)}", (Button("smaller", kept),)
        return text, ()

    async def take(self, job_id: str, user: str, key: str, reply: ReplyTo | None = None) -> Prompt | ImagePrompt:
        """What was offered, as a new request.

        Args:
            job_id: Of the request that was refused.
            user: Who takes it up.
            key: The platform's id of that event.
            reply: Where the answer goes; None for where the first one would have gone.

        Raises:
            JobNotFoundError: It has run out, or was offered to somebody else.
            RedisUnavailableError: Redis is away.
        """
        with mapped_errors(self._redis):
            raw = await self._redis.get(keys.offer(user, job_id))
        if not raw:
            raise JobNotFoundError(GONE)
        prompt = _IMAGE.validate_json(raw[1:]) if raw[:1] == b"i" else _CHAT.validate_json(raw[1:])
        return replace(prompt, key=key, reply=reply or prompt.reply)

    async def forget(self, user: str) -> None:
        """Delete what a person has been offered.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with mapped_errors(self._redis):
            async for name in self._redis.scan_iter(keys.offer(user, "*"), count=1_000):
                await self._redis.unlink(name)
