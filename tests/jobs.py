"""Chat jobs as a front-end would enqueue them, and what came of them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import redis
from rq import Retry
from rq.serializers import JSONSerializer

from tests import engines
from workers import keys
from workers.contract import ChatBody, ChatMessage, Event, ReplyTo, Request, decode_event, encode
from workers.fair_queue import FairQueue
from workers.outbox import OutboxJob

FRONT_END = "term"


def chat_request(key: str = "k1", tenant: str = "t1", prompt: str = "a secret prompt", **changes: object) -> Request:
    fields: dict[str, object] = {
        "platform": "terminal",
        "tenant": tenant,
        "channel": "c1",
        "user": "u1",
        "idempotency_key": key,
        "reply": ReplyTo(front_end=FRONT_END, handle={"message": "7"}),
        "body": ChatBody(messages=(ChatMessage(role="user", content=prompt),)),
        "cost_gpu_s": 2.5,
        "created_at_s": time.time(),
    }
    return Request.model_validate(fields | changes)


def payload(request: Request) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(encode(request))
    return loaded


def fair_queue(client: redis.Redis) -> FairQueue:
    return FairQueue("chat", connection=client, serializer=JSONSerializer)


def ask(queue: FairQueue, key: str, tenant: str = "t1", retries: int = 2, timeout_s: float = 60, **orders: Any) -> str:
    """Enqueue a job for the engine of ``tests.engines``; returns its id."""
    request = chat_request(key, tenant, json.dumps({"key": key, **orders}), timeout_s=timeout_s, user=f"u-{key}")
    job = queue.enqueue_call(
        f"palaver.{request.kind}",
        kwargs={"request": payload(request)},
        job_id=request.job_id,
        description="chat",
        result_ttl=600,
        failure_ttl=600,
        retry=Retry(max=retries) if retries else None,
        unique=True,
    )
    return str(job.id)


def job(client: redis.Redis, job_id: str) -> OutboxJob:
    fetched = OutboxJob.fetch(job_id, connection=client, serializer=JSONSerializer)
    assert isinstance(fetched, OutboxJob)
    return fetched


def events(client: redis.Redis, job_id: str | None = None) -> list[Event]:
    found = [decode_event(fields[b"event"]) for _, fields in client.xrange(keys.events(FRONT_END))]
    return [event for event in found if job_id in (None, event.job_id)]


def types(client: redis.Redis, job_id: str | None = None) -> list[str]:
    return [event.type for event in events(client, job_id)]


def ends(client: redis.Redis) -> dict[str, Event]:
    """The terminal event of each job; fails if one has two."""
    found: dict[str, Event] = {}
    for event in events(client):
        if event.terminal:
            assert event.job_id not in found, f"{event.job_id} ended twice: {found[event.job_id].type}, {event.type}"
            found[event.job_id] = event
    return found


def text_of(client: redis.Redis, event: Event) -> str:
    assert event.execution_id is not None
    data: bytes = client.get(keys.text(event.execution_id)) or b""
    assert len(data) == event.text_bytes
    return data.decode()


def assert_answered(client: redis.Redis, job_ids: list[str]) -> None:
    """Every job finished exactly once, and with the one right answer."""
    ended = ends(client)
    for job_id in job_ids:
        event = ended[job_id]
        assert event.type == "finished", event
        request = job(client, job_id).request
        prompt = request.body.messages[-1].content
        assert text_of(client, event) == engines.answer(prompt, engines.orders_of(prompt)["tokens"])


def wait_until(condition: Callable[[], object], timeout_s: float = 30.0, what: str = "") -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"waited {timeout_s:.0f} s in vain {what}"
        time.sleep(0.02)
