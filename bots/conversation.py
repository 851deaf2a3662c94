"""What the model is shown of a conversation: persona, history, the new message; and how history is kept in Redis.

One conversation is one hash, so it expires and is forgotten as a whole. Its fields, for turn number ``n``:

    n            number of the latest turn
    persona      the conversation's own system text, if it has one
    t:<job_id>   the number of that job's turn
    j:<n>        the job of turn n
    q:<n>        what the user wrote
    u:<n>        who that was, where front-ends tell
    a:<n>        the answer, once there is one

Which conversations a person has written in is kept beside them, so that all of it can be exported and deleted.

A turn belongs to its job: a front-end that was killed and delivers again records nothing twice, and answers keep the
order of their questions whichever arrives first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

from redis.asyncio import Redis

from bots.settings import ConversationSettings
from workers import keys
from workers.contract import ChatMessage
from workers.redis_connection import mapped_errors

#: Text is rarely denser than this in the models' vocabularies' best languages, so ``tokens * 4`` characters bound from
#: above what fits; denser text (code, Chinese) is sent too long, and the engine, which has the tokenizer, trims it.
CHARS_PER_TOKEN = 4

# Each script runs in one conversation's hash (KEYS[1]) and renews its retention.
# KEYS[2]: the author's conversations. ARGV: job, question, turns to keep, seconds to keep, author, this conversation.
_ASK = """
if redis.call('HEXISTS', KEYS[1], 't:' .. ARGV[1]) == 0 then
  local n = redis.call('HINCRBY', KEYS[1], 'n', 1)
  redis.call('HSET', KEYS[1], 't:' .. ARGV[1], n, 'j:' .. n, ARGV[1], 'q:' .. n, ARGV[2])
  local old = n - tonumber(ARGV[3])
  local job = redis.call('HGET', KEYS[1], 'j:' .. old)
  if job then redis.call('HDEL', KEYS[1], 't:' .. job, 'j:' .. old, 'q:' .. old, 'u:' .. old, 'a:' .. old) end
  if ARGV[5] ~= '' then redis.call('HSET', KEYS[1], 'u:' .. n, ARGV[5]) end
end
redis.call('EXPIRE', KEYS[1], ARGV[4])
if ARGV[5] ~= '' then
  redis.call('SADD', KEYS[2], ARGV[6])
  redis.call('EXPIRE', KEYS[2], ARGV[4])
end
return 1
"""
_ANSWER = """
local n = redis.call('HGET', KEYS[1], 't:' .. ARGV[1])
if not n then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return redis.call('HSETNX', KEYS[1], 'a:' .. n, ARGV[2])
"""
_DROP = """
local n = redis.call('HGET', KEYS[1], 't:' .. ARGV[1])
if not n or redis.call('HEXISTS', KEYS[1], 'a:' .. n) == 1 then return 0 end
return redis.call('HDEL', KEYS[1], 't:' .. ARGV[1], 'j:' .. n, 'q:' .. n, 'u:' .. n)
"""
_FORGET_AUTHOR = """
local forgotten = 0
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
  if fields[i]:sub(1, 2) == 'u:' and fields[i + 1] == ARGV[1] then
    local n = fields[i]:sub(3)
    local job = redis.call('HGET', KEYS[1], 'j:' .. n)
    redis.call('HDEL', KEYS[1], 't:' .. (job or ''), 'j:' .. n, 'q:' .. n, 'u:' .. n, 'a:' .. n)
    forgotten = forgotten + 1
  end
end
return forgotten
"""


@dataclass(frozen=True, slots=True)
class Turn:
    """A question and its answer; the answer is None while it is being written."""

    job_id: str
    question: str
    answer: str | None
    author: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """What is known of a conversation."""

    persona: str | None
    turns: tuple[Turn, ...]


class Conversations:
    """All conversations of one Redis.

    Args:
        redis: Connected client, ``decode_responses`` off.
        settings: Retention and budgets.
    """

    def __init__(self, redis: Redis, settings: ConversationSettings) -> None:
        self._redis = redis
        self._settings = settings
        self._ask = redis.register_script(_ASK)
        self._answer = redis.register_script(_ANSWER)
        self._drop = redis.register_script(_DROP)
        self._forget_author = redis.register_script(_FORGET_AUTHOR)

    async def ask(self, tenant: str, name: str, job_id: str, question: str, author: str = "") -> None:
        """Record a question; the same job again changes nothing.

        Args:
            tenant: Whose conversation.
            name: Which one: a channel, a thread, a terminal.
            job_id: The job that will answer.
            question: What the user wrote.
            author: Who that is, on all platforms; empty if it need not be known.
        """
        place, kept = [keys.conversation(tenant, name), keys.conversations_of(author)], self._settings
        arguments: list[str | int] = [job_id, question, kept.max_history_turns, kept.retention_s, author]
        with mapped_errors(self._redis):
            await self._ask(keys=place, args=[*arguments, f"{tenant} {name}"])

    async def answer(self, tenant: str, name: str, job_id: str, answer: str) -> bool:
        """Record an answer, once.

        Returns:
            Whether it is new: False if it was there already or the conversation was forgotten meanwhile.
        """
        arguments: list[str | int] = [job_id, answer, self._settings.retention_s]
        with mapped_errors(self._redis):
            return bool(await self._answer(keys=[keys.conversation(tenant, name)], args=arguments))

    async def drop(self, tenant: str, name: str, job_id: str) -> None:
        """Take back a question that will not be answered, so that the model never sees it dangling."""
        with mapped_errors(self._redis):
            await self._drop(keys=[keys.conversation(tenant, name)], args=[job_id])

    async def set_persona(self, tenant: str, name: str, persona: str | None) -> None:
        """Give a conversation its own system text, or None for the configured one."""
        key = keys.conversation(tenant, name)
        with mapped_errors(self._redis):
            async with self._redis.pipeline(transaction=True) as pipeline:
                if persona is None:
                    pipeline.hdel(key, "persona")
                else:
                    pipeline.hset(key, "persona", persona)
                pipeline.expire(key, self._settings.retention_s)
                await pipeline.execute()

    async def forget(self, tenant: str, name: str) -> bool:
        """Delete a conversation with its persona; returns whether there was one."""
        with mapped_errors(self._redis):
            return bool(await self._redis.delete(keys.conversation(tenant, name)))

    async def forget_author(self, tenant: str, name: str, author: str) -> int:
        """Delete one person's turns of a conversation, answers included; returns how many."""
        with mapped_errors(self._redis):
            return int(await self._forget_author(keys=[keys.conversation(tenant, name)], args=[author]))

    async def of_author(self, author: str) -> list[tuple[str, str]]:
        """Tenant and name of every conversation in which a person has written."""
        with mapped_errors(self._redis):
            places = cast("set[bytes]", await self._redis.smembers(keys.conversations_of(author)))
        return sorted((tenant, name) for tenant, _, name in (place.decode().partition(" ") for place in places))

    async def forget_index(self, author: str) -> None:
        """Delete the record of where a person has written."""
        with mapped_errors(self._redis):
            await self._redis.delete(keys.conversations_of(author))

    async def turns_of(self, tenant: str, name: str, author: str) -> list[Turn]:
        """One person's turns of a conversation."""
        return [turn for turn in (await self.history(tenant, name)).turns if turn.author == author]

    async def known(self, tenant: str, name: str) -> bool:
        """Whether anything is kept of a conversation."""
        with mapped_errors(self._redis):
            return bool(await self._redis.exists(keys.conversation(tenant, name)))

    async def history(self, tenant: str, name: str) -> History:
        """Everything kept of a conversation, oldest turn first."""
        with mapped_errors(self._redis):
            raw = cast(dict[bytes, bytes], await self._redis.hgetall(keys.conversation(tenant, name)))
        fields = {field.decode(): value.decode() for field, value in raw.items()}
        numbers = sorted(int(field[2:]) for field in fields if field.startswith("q:"))
        turns = tuple(
            Turn(fields[f"j:{n}"], fields[f"q:{n}"], fields.get(f"a:{n}"), fields.get(f"u:{n}", "")) for n in numbers
        )
        return History(fields.get("persona"), turns)

    async def messages(
        self, tenant: str, name: str, job_id: str, question: str, persona: str | None = None
    ) -> tuple[ChatMessage, ...]:
        """What the model is shown for a new question.

        Turns that still wait for their answer are left out, as is this job's own turn, so that a repeated call gives
        the same messages.

        Args:
            tenant: Whose conversation.
            name: Which one.
            job_id: The job that will answer.
            question: What the user wrote.
            persona: The system text of a conversation that has none of its own; None for the configured one.

        Returns:
            The system text, the latest answered turns within the budget, and the question.
        """
        history = await self.history(tenant, name)
        default = self._settings.persona if persona is None else persona
        persona = history.persona if history.persona is not None else default
        before = [turn for turn in history.turns if turn.answer and turn.job_id != job_id]
        system = (ChatMessage(role="system", content=persona),) if persona else ()
        turns = within_budget(before, self._settings.history_tokens)
        return (*system, *turns, ChatMessage(role="user", content=question))


def within_budget(turns: Sequence[Turn], budget_tokens: int) -> list[ChatMessage]:
    """The latest turns that fit, whole turns only.

    Args:
        turns: Answered turns, oldest first.
        budget_tokens: Most tokens, counted as ``CHARS_PER_TOKEN`` characters each.

    Returns:
        User and assistant messages in turn, oldest first.
    """
    left_chars = budget_tokens * CHARS_PER_TOKEN
    kept: list[ChatMessage] = []
    for turn in reversed(turns):
        answer = turn.answer or ""
        left_chars -= len(turn.question) + len(answer)
        if left_chars < 0:
            break
        kept += (ChatMessage(role="assistant", content=answer), ChatMessage(role="user", content=turn.question))
    return kept[::-1]
