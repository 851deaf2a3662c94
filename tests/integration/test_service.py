from __future__ import annotations

import asyncio
import json
import math

import pytest
import redis.asyncio

from bots.conversation import Conversations, Turn
from bots.service import ChatService, Prompt, Refusal
from bots.settings import ConversationSettings
from tests.worker_processes import config, worker
from workers.client import Client, Ended, TextDelta
from workers.contract import ReplyTo
from workers.errors import ContractError, RefusedError
from workers.settings import LimitSettings, Rate, WorkerSettings

LIMITS = LimitSettings(user=Rate(per_minute=1, burst=3))


def prompt(key: str = "k1", text: str = "hello", **changes: object) -> Prompt:
    fields: dict[str, object] = {
        "platform": "terminal",
        "tenant": "t1",
        "channel": "c1",
        "user": "u1",
        "conversation": "talk",
        "key": key,
        "text": text,
        "reply": ReplyTo(front_end="terminal", handle={"message": "7"}),
    }
    return Prompt(**(fields | changes))


@pytest.fixture
async def talks(async_redis) -> Conversations:
    return Conversations(async_redis, ConversationSettings())


@pytest.fixture
async def client(server, redis_client):
    client = Client(redis.asyncio.Redis.from_url(server.url), redis_client, LIMITS, WorkerSettings())
    yield client
    await client.close()


@pytest.fixture
def service(client, talks) -> ChatService:
    def no_shouting(asked: Prompt) -> Refusal | None:
        return Refusal("shouting", "Please do not shout.") if asked.text.isupper() else None

    return ChatService(client, talks, rules=[no_shouting])


async def ended(service: ChatService, job_id: str) -> tuple[str, Ended]:
    text = ""
    async with asyncio.timeout(60):
        async for update in service.follow(job_id):
            if isinstance(update, TextDelta):
                text += update.text
            if isinstance(update, Ended):
                return text, update
    raise AssertionError("no end")


async def test_a_rule_refuses_before_anything_is_stored_or_charged(service, async_redis):
    with pytest.raises(RefusedError, match="do not shout") as caught:
        await service.ask(prompt(text="HELLO"))
    assert (caught.value.limit, caught.value.retry_after_s) == ("shouting", math.inf)
    assert await async_redis.dbsize() == 0


async def test_a_limit_refuses_with_a_time_and_leaves_no_dangling_question(service, talks):
    for number in range(3):
        await service.ask(prompt(key=f"k{number}"))
    with pytest.raises(RefusedError) as caught:
        await service.ask(prompt(key="k9", text="one too many"))
    assert caught.value.limit == "user"
    assert 0 < caught.value.retry_after_s <= 60
    assert [turn.question for turn in (await talks.history("t1", "talk")).turns] == ["hello"] * 3


async def test_the_same_event_is_one_job(service, talks):
    first = await service.ask(prompt())
    again = await service.ask(prompt())
    assert (first.job_id, first.duplicate, again.job_id, again.duplicate) == ("t1__k1", False, "t1__k1", True)
    assert len((await talks.history("t1", "talk")).turns) == 1


@pytest.mark.parametrize("changes", [{"tenant": "a__b"}, {"user": ""}, {"text": "x" * 300_000}])
async def test_what_cannot_be_carried_is_refused_without_its_content(service, async_redis, changes):
    with pytest.raises(ContractError) as caught:
        await service.ask(prompt(**changes))
    assert "xxx" not in str(caught.value)
    assert await async_redis.dbsize() == 0


async def test_an_answer_is_recorded_once_however_often_it_is_followed(service, talks, server):
    with worker(config(server.url)):
        submitted = await service.ask(prompt(text=json.dumps({"tokens": 5})))
        text, end = await ended(service, submitted.job_id)
        assert end.event.type == "finished"
        assert await ended(service, submitted.job_id) == (text, end), "any process can follow again"
    assert (await talks.history("t1", "talk")).turns == (
        Turn("t1__k1", json.dumps({"tokens": 5}), text, "terminal:u1"),
    )


async def test_what_was_stopped_stays_as_far_as_it_was_seen(service, talks, server):
    with worker(config(server.url)):
        submitted = await service.ask(prompt(text=json.dumps({"tokens": 5_000, "step_s": 0.01})))
        async with asyncio.timeout(60):
            async for update in service.follow(submitted.job_id):
                if isinstance(update, TextDelta):
                    break
        await service.stop(submitted.job_id, "u1")
        text, end = await ended(service, submitted.job_id)
    assert end.event.type == "cancelled"
    assert [turn.answer for turn in (await talks.history("t1", "talk")).turns] == [text]


async def test_a_question_without_an_answer_is_not_shown_to_the_model(service, talks, server):
    with worker(config(server.url)):
        submitted = await service.ask(prompt(text=json.dumps({"tokens": 5, "refuse": "invalid_request"})))
        _, end = await ended(service, submitted.job_id)
    assert end.event.type in ("failed", "refused")
    assert (await talks.history("t1", "talk")).turns == ()
