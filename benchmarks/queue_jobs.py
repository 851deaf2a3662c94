"""No-op jobs a second and worker CPU for each: our BatchWorker against rq's own workers, interleaved in one run.

Run ``python -m benchmarks.queue_jobs [--jobs N] [--rounds N] [--json FILE] [--redis URL]``. Every worker is a process
of its own that works off a filled queue in burst mode; the clock runs from the start of the first job to the end of the
last, so that neither loading nor enqueuing is measured. CPU is that of the worker process, for rq's forking worker with
its children; the engine process of the BatchWorker is listed apart. Ours does more for each job: events, fairness,
limits' refunds, a lease, a fence.
"""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import redis
from rq import Queue, SimpleWorker, Worker
from rq.serializers import JSONSerializer

from benchmarks.measuring import Row, parse, report, server_url
from generation.types import EngineEvent, EngineInfo, EngineRequest, Finished, Usage
from workers.batch_worker import BatchWorker
from workers.contract import ChatBody, ChatMessage, ReplyTo, Request, encode
from workers.engine_process import EngineSpec
from workers.fair_queue import FairQueue

if TYPE_CHECKING:
    from collections.abc import Callable

SLOTS = 64
GOAL_JOBS_PER_S = 1_000
GOAL_RATIO = 4
NO_OP = "benchmarks.queue_jobs.no_op"


def no_op() -> None:
    """What rq's own workers run."""


class NoOpEngine:
    """Finishes every request in the step after it came."""

    def __init__(self) -> None:
        self._waiting: list[str] = []

    @property
    def info(self) -> EngineInfo:
        return EngineInfo("no-op", "none", "cpu", "none", SLOTS, 0)

    @property
    def busy(self) -> bool:
        return bool(self._waiting)

    def submit(self, request: EngineRequest) -> None:
        self._waiting.append(request.request_id)

    def cancel(self, request_id: str) -> None:
        if request_id in self._waiting:
            self._waiting.remove(request_id)

    def step(self) -> list[EngineEvent]:
        done, self._waiting = self._waiting, []
        return [Finished(request_id, "stop", Usage()) for request_id in done]

    def close(self) -> None:
        self._waiting.clear()


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> NoOpEngine:  # noqa: ARG001 - a factory
    return NoOpEngine()


def fill_ours(client: redis.Redis, jobs: int) -> None:
    queue = FairQueue("chat", connection=client, serializer=JSONSerializer)
    body = ChatBody(messages=(ChatMessage(role="user", content="x" * 200),))
    with client.pipeline(transaction=False) as pipeline:
        for index in range(jobs):
            request = Request(
                platform="bench",
                tenant=f"t{index % 8}",
                channel="c",
                user=f"u{index % 100}",
                idempotency_key=str(index),
                reply=ReplyTo(front_end="bench"),
                body=body,
                created_at_s=time.time(),
            )
            queue.enqueue_call(
                "palaver.chat",
                kwargs={"request": json.loads(encode(request))},
                job_id=request.job_id,
                description="chat",
                result_ttl=600,
                pipeline=pipeline,
            )
        pipeline.execute()


def fill_stock(client: redis.Redis, jobs: int) -> None:
    queue = Queue("chat", connection=client, serializer=JSONSerializer)
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(jobs):
            queue.enqueue_call(NO_OP, description="no-op", result_ttl=600, pipeline=pipeline)
        pipeline.execute()


def work(kind: str, url: str) -> None:
    """The worker process; prints its CPU seconds."""
    client = redis.Redis.from_url(url)
    if kind == "BatchWorker":
        queue = FairQueue("chat", connection=client, serializer=JSONSerializer)
        BatchWorker(queue, EngineSpec("benchmarks.queue_jobs:build")).work(burst=True)
    else:
        worker_class = {"Worker": Worker, "SimpleWorker": SimpleWorker}[kind]
        worker = worker_class(["chat"], connection=client, serializer=JSONSerializer, log_job_description=False)
        worker.work(burst=True, logging_level="ERROR")
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    print(json.dumps({"own_s": own.ru_utime + own.ru_stime, "children_s": children.ru_utime + children.ru_stime}))


def span_s(client: redis.Redis, jobs: int) -> float:
    """Seconds from the first job's start to the last one's end, by rq's own records."""
    from rq.job import Job

    ids = [key.decode().removeprefix("rq:job:") for key in client.scan_iter("rq:job:*", count=10_000)]
    records = [job for job in Job.fetch_many(ids, connection=client, serializer=JSONSerializer) if job is not None]
    assert len(records) == jobs
    assert all(job.ended_at for job in records), "every job must have run"
    started = min(job.started_at for job in records if job.started_at)
    ended = max(job.ended_at for job in records if job.ended_at)
    return (ended - started).total_seconds()


def measure(kind: str, url: str, client: redis.Redis, jobs: int, idle_s: dict[str, float]) -> dict[str, float]:
    client.flushall()
    (fill_ours if kind == "BatchWorker" else fill_stock)(client, jobs)
    arguments = [sys.executable, "-c", f"from benchmarks.queue_jobs import work; work({kind!r}, {url!r})"]
    finished = subprocess.run(arguments, stdout=subprocess.PIPE, check=True)
    cpu = json.loads(finished.stdout.splitlines()[-1])
    if not jobs:
        return cpu
    own_s = cpu["own_s"] - idle_s["own_s"]
    children_s = cpu["children_s"] - idle_s["children_s"]
    own = own_s if kind == "BatchWorker" else own_s + children_s
    figures = {"jobs/s": jobs / span_s(client, jobs), "CPU us/job": own / jobs * 1e6}
    if kind == "BatchWorker":
        figures["engine us/job"] = children_s / jobs * 1e6
    return figures


def main() -> None:
    options = parse(__doc__, jobs=4_000, rounds=3)
    sizes = {"BatchWorker": options.jobs, "SimpleWorker": options.jobs // 8, "Worker": options.jobs // 40}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in sizes}
    with server_url(options.redis) as url, redis.Redis.from_url(url) as client:
        idle = {kind: measure(kind, url, client, 0, {}) for kind in sizes}
        for _ in range(options.rounds):
            for kind, jobs in sizes.items():
                found[kind].append(measure(kind, url, client, jobs, idle[kind]))
    rows = [
        Row(kind, {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]})
        for kind, rounds in found.items()
    ]
    ratio = rows[0].figures["jobs/s"] / rows[1].figures["jobs/s"]
    rows[0].figures["x SimpleWorker"] = ratio
    goals = {"BatchWorker": ("jobs/s", GOAL_JOBS_PER_S)}
    report(f"No-op jobs, {SLOTS} slots, median of {options.rounds} rounds", rows, options.json, goals)
    print(f"goal BatchWorker over SimpleWorker >= {GOAL_RATIO}: {'reached' if ratio >= GOAL_RATIO else 'missed'}")


if __name__ == "__main__":
    main()
