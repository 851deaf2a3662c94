"""No-op jobs a second, worker CPU for each and time to the start: our BatchWorker against rq's own workers and others'.

Run ``python -m benchmarks.queue_jobs [--jobs N] [--rounds N] [--json FILE] [--redis URL]``. All take turns on one
server. arq, taskiq, dramatiq and Celery take part where ``make bench-queues`` has installed them, which must be an
environment of their own, and are skipped with a line elsewhere. Every worker is a process
of its own that works off a filled queue in burst mode; the clock runs from the start of the first job to the end of the
last, so that neither loading nor enqueuing is measured. CPU is that of the worker process, for rq's forking worker with
its children; the engine process of the BatchWorker is listed apart. The time to the start is that of single jobs given
to an idle worker, by rq's own records. Ours does more for each job: events, fairness, refunds, a lease, a fence; and
of the others only arq, rq and Celery keep a result.
"""

from __future__ import annotations

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
#: See ``benchmarks.other_queues``.
OTHERS = ("arq", "taskiq", "dramatiq", "celery")
OTHERS_PYTHON = Path(os.environ.get("BENCH_QUEUES", "build/bench-queues")) / "bin/python"
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


def fill_ours(client: redis.Redis, jobs: int, first: int = 0) -> None:
    queue = FairQueue("chat", connection=client, serializer=JSONSerializer)
    body = ChatBody(messages=(ChatMessage(role="user", content="x" * 200),))
    with client.pipeline(transaction=False) as pipeline:
        for index in range(first, first + jobs):
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


def fill_stock(client: redis.Redis, jobs: int, _first: int = 0) -> None:
    queue = Queue("chat", connection=client, serializer=JSONSerializer)
    with client.pipeline(transaction=False) as pipeline:
        for _ in range(jobs):
            queue.enqueue_call(NO_OP, description="no-op", result_ttl=600, pipeline=pipeline)
        pipeline.execute()


def work(kind: str, url: str, burst: bool = True) -> None:
    """The worker process; prints its CPU seconds."""
    client = redis.Redis.from_url(url)
    if kind == "BatchWorker":
        queue = FairQueue("chat", connection=client, serializer=JSONSerializer)
        BatchWorker(queue, EngineSpec("benchmarks.queue_jobs:build")).work(burst=burst)
    else:
        worker_class = {"Worker": Worker, "SimpleWorker": SimpleWorker}[kind]
        worker = worker_class(["chat"], connection=client, serializer=JSONSerializer, log_job_description=False)
        worker.work(burst=burst, logging_level="ERROR")
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


def start_latency_ms(kind: str, url: str, client: redis.Redis, probes: int) -> float:
    """Median time from enqueuing a single job to its start, with the worker idle before."""
    client.flushall()
    arguments = [sys.executable, "-c", f"from benchmarks.queue_jobs import work; work({kind!r}, {url!r}, burst=False)"]
    worker = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    try:
        waits = [_one_start_s(kind, client, number) for number in range(probes)]
    finally:
        worker.terminate()
        worker.wait(30)
    return statistics.median(waits[1:]) * 1e3


def _one_start_s(kind: str, client: redis.Redis, number: int) -> float:
    before = set(client.keys("rq:job:*"))
    (fill_ours if kind == "BatchWorker" else fill_stock)(client, 1, number)
    (name,) = set(client.keys("rq:job:*")) - before
    deadline_s = time.monotonic() + 60
    while client.hget(name, "status") != b"finished":
        assert time.monotonic() < deadline_s, f"{kind} does not take a job"
        time.sleep(0.002)
    started, asked = (
        datetime.fromisoformat(client.hget(name, field).decode()) for field in ("started_at", "enqueued_at")
    )
    time.sleep(0.05)  # idle again
    return (started - asked).total_seconds()


def others(redis_port_url: str | None, client: redis.Redis, jobs: int) -> dict[str, dict[str, float]]:
    """Figures of the other libraries' workers; a line for each that is not there."""
    found = {}
    for name in OTHERS:
        if not OTHERS_PYTHON.exists() or redis_port_url is None:
            print(f"{name}: skipped, `make bench-queues` installs it")
            continue
        command = [OTHERS_PYTHON, "-m", "benchmarks.other_queues", name]

        def run(what: str, count: int, command: list[Any] = command) -> dict[str, float]:
            arguments = [*command, what, redis_port_url, str(count)]
            done = subprocess.run(arguments, capture_output=True, text=True, check=False, timeout=300)
            assert done.returncode == 0, done.stderr[-2_000:]
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            return json.loads(lines[-1]) if lines else {}

        figures = {}
        for count in (1, jobs):  # what starting costs is taken off
            client.flushall()
            run("fill", count)
            figures[count] = run("work", count)
        cpu_s = figures[jobs]["own_s"] - figures[1]["own_s"]
        found[name] = {"jobs/s": (jobs - 1) / figures[jobs]["span_s"], "CPU us/job": cpu_s / jobs * 1e6}
    return found


def main() -> None:
    options = parse(__doc__, jobs=4_000, rounds=3, probes=20)
    sizes = {"BatchWorker": options.jobs, "SimpleWorker": options.jobs // 8, "Worker": options.jobs // 40}
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in sizes}
    with server_url(options.redis, with_port=True) as url, redis.Redis.from_url(url) as client:
        idle = {kind: measure(kind, url, client, 0, {}) for kind in sizes}
        for _ in range(options.rounds):
            for kind, jobs in sizes.items():
                found[kind].append(measure(kind, url, client, jobs, idle[kind]))
            for name, figures in others(url, client, options.jobs).items():
                found.setdefault(name, []).append(figures)
        starts_ms = {kind: start_latency_ms(kind, url, client, options.probes) for kind in sizes}
    rows = [
        Row(kind, {name: statistics.median(figures[name] for figures in rounds) for name in rounds[0]})
        for kind, rounds in found.items()
    ]
    for row in rows:
        row.figures["ours is x times"] = rows[0].figures["jobs/s"] / row.figures["jobs/s"]
        if row.name in starts_ms:
            row.figures["start ms"] = starts_ms[row.name]
    ratio = rows[1].figures["ours is x times"]
    goals = {"BatchWorker": ("jobs/s", GOAL_JOBS_PER_S)}
    report(f"No-op jobs, {SLOTS} slots, median of {options.rounds} rounds", rows, options.json, goals)
    print(f"goal BatchWorker over SimpleWorker >= {GOAL_RATIO}: {'reached' if ratio >= GOAL_RATIO else 'missed'}")


if __name__ == "__main__":
    main()
