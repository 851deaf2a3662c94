"""How busy everything is, at one moment and between two of them."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

import redis
from rq.utils import as_text

from bots.overview import QueueStatus, ServerStatus, WorkerStatus, queue_of, server_of, workers_of
from bots.up_wants import KINDS
from workers import keys
from workers.contract import tenant_of
from workers.queue_metrics import oldest_wait_s


@dataclass(frozen=True, slots=True)
class TenantActivity:
    """One tenant's jobs of all kinds."""

    tenant: str
    queued: int
    running: int


@dataclass(frozen=True, slots=True)
class Activity:
    """A moment.

    Attributes:
        oldest_s: How long the oldest queued job has waited, by kind.
        tenants: Those with jobs, the busiest first.
        answered: Jobs that each running worker has answered since its start.
        jobs_per_s: Answers between the moment before and this one, by kind; empty for a first moment.
    """

    at_s: float
    server: ServerStatus
    queues: list[QueueStatus]
    oldest_s: dict[str, float]
    workers: list[WorkerStatus]
    tenants: list[TenantActivity]
    answered: dict[str, int]
    jobs_per_s: dict[str, float] = field(default_factory=dict)


def activity(client: redis.Redis, embedded: bool, before: Activity | None = None) -> Activity:
    """Look at everything once.

    Args:
        client: Connected to the queue's server.
        embedded: Whether that is the product's own.
        before: An earlier look, for rates.
    """
    queues, workers = [queue_of(client, kind) for kind in KINDS], workers_of(client)
    answered = _answered(client, workers)
    now_s = time.time()
    return Activity(
        at_s=now_s,
        server=server_of(client, embedded),
        queues=queues,
        oldest_s={kind: oldest_wait_s(client, kind) for kind in KINDS},
        workers=workers,
        tenants=_tenants(client, queues),
        answered=answered,
        jobs_per_s=_rates(workers, answered, now_s, before) if before else {},
    )


def _answered(client: redis.Redis, workers: list[WorkerStatus]) -> dict[str, int]:
    with client.pipeline(transaction=False) as pipeline:
        for worker in workers:
            pipeline.hget(f"rq:worker:{worker.name}", "successful_job_count")
        return {worker.name: int(count or 0) for worker, count in zip(workers, pipeline.execute(), strict=True)}


def _rates(workers: list[WorkerStatus], answered: dict[str, int], now_s: float, before: Activity) -> dict[str, float]:
    passed_s = max(now_s - before.at_s, 1e-3)
    rates: dict[str, float] = dict.fromkeys(KINDS, 0.0)
    for worker in workers:  # what a new worker has done, it has done since
        done = answered[worker.name] - before.answered.get(worker.name, 0)
        rates[worker.kind] = rates.get(worker.kind, 0.0) + max(0, done) / passed_s
    return rates


def _tenants(client: redis.Redis, queues: list[QueueStatus]) -> list[TenantActivity]:
    queued, running = Counter[str](), Counter[str]()
    for queue in queues:
        queued.update(queue.tenants)
        held = cast("list[bytes]", client.hkeys(keys.fair(keys.queue(queue.kind), "running")))
        running.update(tenant_of(as_text(job_id)) for job_id in held)
    names = sorted({*queued, *running}, key=lambda name: (-running[name], -queued[name], name))
    return [TenantActivity(name, queued[name], running[name]) for name in names]
