"""Prompts that name a model: answered by that model's workers or by nobody, and never lost."""

from __future__ import annotations

import contextlib
import json

import pytest
import redis
from rq.serializers import JSONSerializer

from tests.jobs import wait_until
from tests.queue_ends import Reader, client_of
from tests.requests import chat_request
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker
from workers import keys
from workers.contract import Request, decode_request, encode
from workers.errors import ContractError, RefusedError
from workers.fair_queue import FairQueue
from workers.outbox import OutboxJob
from workers.served_models import public_name
from workers.worker_process import WorkerConfig


def serving(url: str, model: str, beside: bool = False) -> WorkerConfig:
    return config(url, model, model=model).model_copy(update={"model": model if beside else None})


def _told(redis_client: redis.Redis) -> set[str]:
    return {json.loads(entry)["model"] for entry in redis_client.hvals(keys.workers())}


async def test_a_named_model_answers_and_an_unknown_one_is_refused(
    server: ValkeyProcess, redis_client: redis.Redis
) -> None:
    async with client_of(server.url) as client:
        with contextlib.ExitStack() as stack:
            stack.enter_context(worker(serving(server.url, "small")))
            stack.enter_context(worker(serving(server.url, "org/large", beside=True)))
            wait_until(lambda: _told(redis_client) == {"small", "org/large"})
            assert await client.models("chat") == ["small", "org/large"]
            assert await client.models("image") == []
            for key, model, queue in (
                ("k1", None, "chat"),
                ("k2", "small", "chat"),
                ("k3", "org/large", keys.queue("chat", "org/large")),
            ):
                submitted = await client.submit(chat_request(key, model=model))
                assert (await Reader(client, submitted.job_id).end()).type == "finished"
                job = OutboxJob.fetch(submitted.job_id, connection=redis_client, serializer=JSONSerializer)
                assert job.origin == queue
                assert str(job.worker_name).startswith("org" if model == "org/large" else "small")
                assert (await client.submit(chat_request(key, model=model))).duplicate
            with pytest.raises(RefusedError, match=r"does not run here\. There is small, org/large"):
                await client.submit(chat_request("k4", model="gpt-9"))
            assert (await client.usage("t1", "u1")).tenant.day.by_kind["chat"].jobs == 3
        # What was taken for a model waits for it: nobody else's worker sees it.
        redis_client.hset(
            keys.workers(),
            "late",
            json.dumps({"kind": "chat", "queue": keys.queue("chat", "org/large"), "model": "org/large", "at_s": 9e12}),
        )
        waiting = await client.submit(chat_request("k5", model="org/large"))
        redis_client.hdel(keys.workers(), "late")
        with worker(serving(server.url, "small")):
            other = await client.submit(chat_request("k6"))
            await Reader(client, other.job_id).end()
            assert (await client.position(waiting.job_id)) is not None
            with worker(serving(server.url, "org/large", beside=True)):
                assert (await Reader(client, waiting.job_id).end()).type == "finished"


async def test_a_model_that_was_changed_while_a_prompt_waited_answers_nothing_and_that_is_said(
    server: ValkeyProcess, redis_client: redis.Redis
) -> None:
    request = chat_request("k1", model="small")
    queue = FairQueue("chat", connection=redis_client, serializer=JSONSerializer)
    queue.enqueue_call(
        "palaver.chat", kwargs={"request": json.loads(encode(request))}, job_id=request.job_id, description="chat"
    )
    async with client_of(server.url) as client:
        with worker(serving(server.url, "other")):
            event = await Reader(client, request.job_id).end()
    assert (event.type, event.failure and event.failure.code) == ("refused", "model")
    assert "does not run here any more" in (event.failure.message if event.failure else "")


def test_where_a_model_lies_is_nobodys_business_but_the_operators() -> None:
    assert public_name("/srv/models/mine/") == "mine"
    assert public_name("~/mine") == "mine"
    assert public_name("org/name@v1") == "org/name@v1"
    assert public_name("") is None


def test_the_name_is_optional_and_older_payloads_lack_it() -> None:
    assert "model" not in json.loads(encode(chat_request()))
    assert decode_request(encode(chat_request())).model is None
    assert decode_request(encode(chat_request(model="small"))).model == "small"
    with pytest.raises(ContractError):
        decode_request({**json.loads(encode(chat_request())), "model": ""})
    assert keys.queue("chat") == "chat"
    assert keys.queue("chat", "a/b") != keys.queue("chat", "a-b")
    assert keys.kind_of(keys.queue("image", "a/b")) == "image"
    assert Request.model_fields["model"].default is None
