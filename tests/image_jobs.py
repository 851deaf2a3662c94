"""Image jobs as front-ends enqueue them, their workers, and what came of them."""

from __future__ import annotations

from typing import Any

import redis
from rq import Retry
from rq.serializers import JSONSerializer

from tests import image_engine
from tests.jobs import chat_request, ends, job, payload
from tests.worker_processes import config
from workers import keys
from workers.contract import Event, ImageBody, Request
from workers.fair_queue import FairQueue
from workers.worker_process import WorkerConfig


def image_queue(client: redis.Redis) -> FairQueue:
    return FairQueue("image", connection=client, serializer=JSONSerializer)


def image_request(key: str = "k1", tenant: str = "t1", prompt: str = "a red fox", **changes: Any) -> Request:
    body = {"kind": "image", "prompt": prompt, "options": {"n": 2, "seed": 7}} | changes.pop("body", {})
    return chat_request(key, tenant, body=ImageBody.model_validate(body), **changes)


def draw(queue: FairQueue, request: Request) -> str:
    """Enqueue a job for the engine of ``tests.image_engine``; returns its id."""
    enqueued = queue.enqueue_call(
        "palaver.image",
        kwargs={"request": payload(request)},
        job_id=request.job_id,
        description="image",
        result_ttl=600,
        failure_ttl=600,
        retry=Retry(max=2),
        unique=True,
    )
    return str(enqueued.id)


def image_config(url: str, name: str = "i1", worker: dict[str, Any] | None = None, **options: Any) -> WorkerConfig:
    changes = {"kind": "image", "factory": "tests.image_engine:build"}
    return config(url, name, worker, **options).model_copy(update=changes)


def pictures_of(client: redis.Redis, event: Event) -> list[bytes]:
    return [client.hget(keys.artifact(image.artifact_id), "data") for image in event.images]  # type: ignore[misc]


def assert_drawn(client: redis.Redis, job_ids: list[str]) -> None:
    """Every job finished exactly once, with the right pictures."""
    ended = ends(client)
    for job_id in job_ids:
        event = ended[job_id]
        assert event.type == "finished", event
        body = job(client, job_id).request.body
        assert isinstance(body, ImageBody)
        first = body.options.seed or 0
        wanted = [image_engine.picture(body.prompt, first + index) for index in range(body.options.n)]
        assert pictures_of(client, event) == wanted
        assert [image.seed for image in event.images] == [first + index for index in range(body.options.n)]
