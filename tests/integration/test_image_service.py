"""Image prompts on the one road of every front-end: rules, limits, and details from the chat model."""

from __future__ import annotations

import asyncio
import json

import pytest
import redis.asyncio

from bots import enhancement
from bots.conversation import Conversations
from bots.image_prompt import ImagePrompt
from bots.service import ChatService, Enhanced, Prompt, Refusal, Update
from bots.settings import ConversationSettings
from tests import image_engine
from tests.engines import answer
from tests.image_jobs import image_config
from tests.worker_processes import config, worker
from workers import keys
from workers.client import Client, Ended, ImageProgress
from workers.contract import Event, ImageOptions, ReplyTo
from workers.errors import ContractError, RefusedError
from workers.settings import LimitSettings, Rate, WorkerSettings

LIMITS = {"chat": LimitSettings(), "image": LimitSettings(user=Rate(per_minute=1, burst=2))}


def image_prompt(key: str = "k1", text: str = "a red fox", **changes: object) -> ImagePrompt:
    fields: dict[str, object] = {
        "platform": "terminal",
        "tenant": "t1",
        "channel": "c1",
        "user": "u1",
        "key": key,
        "text": text,
        "reply": ReplyTo(front_end="terminal", handle={"message": "7"}),
        "options": ImageOptions(seed=7),
    }
    return ImagePrompt(**(fields | changes))


@pytest.fixture
async def client(server, redis_client):
    async with Client(redis.asyncio.Redis.from_url(server.url), redis_client, LIMITS, WorkerSettings()) as client:
        yield client


@pytest.fixture
def service(client, async_redis) -> ChatService:
    def no_shouting(asked: Prompt | ImagePrompt) -> Refusal | None:
        return Refusal("shouting", "Please do not shout.") if asked.text.isupper() else None

    return ChatService(client, Conversations(async_redis, ConversationSettings()), rules=[no_shouting])


async def followed(service: ChatService, job_id: str) -> tuple[list[Update], Event]:
    async with asyncio.timeout(60):
        updates = [update async for update in service.follow(job_id)]
    ends = [update.event for update in updates if isinstance(update, Ended)]
    assert len(ends) == 1
    assert isinstance(updates[-1], Ended)
    return updates, ends[0]


def enhanced_in(updates: list[Update]) -> list[str]:
    return [update.text for update in updates if isinstance(update, Enhanced)]


async def test_pictures_of_a_prompt(service, client, server):
    with worker(image_config(server.url, step_s=0.1)):
        submitted = await service.imagine(image_prompt())
        updates, event = await followed(service, submitted.job_id)
        assert event.type == "finished"
        assert event.reply == ReplyTo(front_end="terminal", handle={"message": "7"})
        assert await client.artifact(event.images[0].artifact_id) == image_engine.picture("a red fox", 7)
        assert [update for update in updates if isinstance(update, ImageProgress)]
        again = await service.imagine(image_prompt())
        assert (again.job_id, again.duplicate) == (submitted.job_id, True)
        assert (await followed(service, submitted.job_id))[1] == event


async def test_rules_and_limits_are_those_of_images(service, async_redis):
    with pytest.raises(RefusedError, match="do not shout"):
        await service.imagine(image_prompt(text="A RED FOX"))
    assert await async_redis.dbsize() == 0
    for number in range(2):
        await service.imagine(image_prompt(key=f"k{number}"))
    with pytest.raises(RefusedError) as caught:
        await service.imagine(image_prompt(key="k9"))
    assert caught.value.limit == "user"


@pytest.mark.parametrize("changes", [{"tenant": "a__b"}, {"text": "x" * 10_001}, {"init_image": "../secret"}])
async def test_what_cannot_be_carried_is_refused_without_its_content(service, async_redis, changes):
    with pytest.raises(ContractError) as caught:
        await service.imagine(image_prompt(**changes))
    assert "xxx" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert await async_redis.dbsize() == 0


async def test_the_chat_model_adds_details_first(service, client, server, async_redis):
    prompt = image_prompt(enhance=True)
    with worker(config(server.url)), worker(image_config(server.url)):
        submitted = await service.imagine(prompt)
        assert (submitted.job_id, submitted.duplicate) == (prompt.job_id, False)
        assert (await service.imagine(prompt)).duplicate, "the same event again"
        updates, event = await followed(service, submitted.job_id)
        details = " ".join(answer("a red fox", 80).split())
        (text,) = enhanced_in(updates)
        assert text.startswith("a red fox, ")
        assert details.startswith(text.removeprefix("a red fox, ")[:100])
        assert await client.artifact(event.images[0].artifact_id) == image_engine.picture(text, 7)
        again, same = await followed(service, submitted.job_id)
        assert (enhanced_in(again), same) == ([text], event), "any process can follow again"
    told = await async_redis.xlen(keys.events("terminal"))
    assert told == 2, "the front-end hears of the pictures alone"


async def test_pictures_outlive_the_details(service, client, server, async_redis):
    prompt = image_prompt(enhance=True)
    with worker(config(server.url)), worker(image_config(server.url)):
        await service.imagine(prompt)
        _, event = await followed(service, prompt.job_id)
    await async_redis.delete(*[key async for key in async_redis.scan_iter(keys.text("*"))])
    updates, again = await followed(service, prompt.job_id)
    assert (enhanced_in(updates), again) == ([], event)


async def test_whoever_follows_goes_on_where_another_was_killed(service, client, server, async_redis):
    prompt = image_prompt(enhance=True)
    with worker(config(server.url)):
        await service.imagine(prompt)
        async with asyncio.timeout(60):
            async for _ in client.follow(enhancement.enhancement_id(prompt.job_id)):
                pass
    assert not await client.known(prompt.job_id), "nobody followed, so nobody has asked for pictures yet"
    with worker(image_config(server.url)):
        _, event = await followed(service, prompt.job_id)
    assert event.type == "finished"


async def test_without_details_the_prompt_is_drawn_as_it_is(service, client, server):
    prompt = image_prompt(text=json.dumps({"refuse": "busy"}), enhance=True)
    with worker(config(server.url)):
        await service.imagine(prompt)
        async with asyncio.timeout(60):
            async for update in service.follow(prompt.job_id):
                if isinstance(update, Enhanced):
                    assert update.text == prompt.text
                    break
    assert await client.known(prompt.job_id)


async def test_a_stop_while_details_are_being_made(service, client, server):
    prompt = image_prompt(enhance=True)
    await service.imagine(prompt)
    with pytest.raises(Exception, match="Only the person"):
        await service.stop(prompt.job_id, "u2")
    assert await service.stop(prompt.job_id, "u1") == "cancelled"
    updates, event = await followed(service, prompt.job_id)
    assert (event.type, event.job_id, event.reply) == ("cancelled", prompt.job_id, prompt.reply)
    assert enhanced_in(updates) == []
    assert not await client.known(prompt.job_id)


async def test_a_limit_that_is_met_after_the_details_ends_the_job(service, server):
    for number in range(2):
        await service.imagine(image_prompt(key=f"k{number}"))
    prompt = image_prompt(key="k9", enhance=True)
    with worker(config(server.url)):
        await service.imagine(prompt)
        _, event = await followed(service, prompt.job_id)
    assert (event.type, event.job_id) == ("refused", prompt.job_id)
    assert event.failure is not None
    assert event.failure.retry_after_s is not None


@pytest.mark.parametrize("changes", [{"text": "word " * 40}, {"text": "  "}, {"task": "upscale"}, {"enhance": False}])
def test_what_is_not_enhanced(changes):
    assert not enhancement.wanted(image_prompt(**({"enhance": True} | changes)))


def test_ids_of_long_keys_stay_within_the_contract():
    ids = {enhancement.enhancement_id("t1__" + "k" * length) for length in range(60, 81)}
    assert len(ids) == 21
    assert max(len(job_id.partition("__")[2]) for job_id in ids) <= 80
