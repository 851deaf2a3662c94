"""Who talks to the bot for the first time: the answer then also says that a machine gives it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from redis.asyncio import Redis

from bots.image_prompt import ImagePrompt
from bots.service import Prompt
from workers import keys
from workers.contract import ReplyTo
from workers.redis_connection import mapped_errors

#: Handle field of an answer that is somebody's first.
FIRST = "first"
#: Whoever has not been here for so long is told again.
_TTL_S = 180 * 86_400


class FirstContacts:
    """Remembers whom the bot has answered.

    Args:
        redis: Connected client, ``decode_responses`` off.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def noted(self, prompt: Prompt | ImagePrompt) -> Prompt | ImagePrompt:
        """The prompt, with a note in its handle if it is its author's first; the same prompt again is it again.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        key = keys.first_contact(prompt.platform, prompt.user)
        with mapped_errors(self._redis):
            job_id: Any = await self._redis.set(key, prompt.job_id, ex=_TTL_S, nx=True, get=True)
            if job_id is not None and job_id.decode() != prompt.job_id:
                await self._redis.expire(key, _TTL_S)
                return prompt
        reply = prompt.reply.model_copy(update={"handle": {**prompt.reply.handle, FIRST: "1"}})
        return replace(prompt, reply=reply)

    async def undo(self, prompt: Prompt | ImagePrompt) -> None:
        """A prompt was not taken: the next one of its author is the first.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        if is_first(prompt.reply):
            await self.forget(prompt.platform, prompt.user)

    async def forget(self, platform: str, user: str) -> None:
        """Forget that somebody was here.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with mapped_errors(self._redis):
            await self._redis.delete(keys.first_contact(platform, user))


def is_first(reply: ReplyTo) -> bool:
    """Whether an answer is the first that somebody gets."""
    return FIRST in reply.handle
