"""Jobs as the fair queue reads them, written without rq's enqueue so that tests can make thousands of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import redis
from rq.job import Job

from workers.fair_queue import FairQueue


@dataclass(frozen=True)
class FairJob:
    """What matters of a job here."""

    job_id: str
    cost_gpu_s: float = 1.0
    user: str = ""


def push(queue: FairQueue, jobs: Iterable[FairJob], *, started: bool = False) -> None:
    """Enqueue at the back, as rq does; ``started`` as for a retry."""
    with queue.connection.pipeline(transaction=False) as pipeline:
        for job in jobs:
            fields = {
                "status": "queued",
                "origin": queue.name,
                "created_at": "2026-01-01T00:00:00.000000Z",
                "data": "",
                "started_at": "2026-01-01T00:00:00.000000Z" if started else "",
                "cost_gpu_s": str(job.cost_gpu_s),
                "user": job.user,
            }
            pipeline.hset(Job.redis_job_namespace_prefix + job.job_id, mapping=fields)
            pipeline.rpush(queue.key, job.job_id)
        pipeline.execute()


def start(client: redis.Redis, queue: FairQueue, job_ids: Iterable[str]) -> None:
    """What a worker's MULTI does to popped ids: off the intermediate list, into the registry of running executions."""
    with client.pipeline() as pipeline:
        for job_id in job_ids:
            pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
            pipeline.hset(Job.redis_job_namespace_prefix + job_id, "status", "started")
            pipeline.zadd(queue.started_job_registry.key, {f"{job_id}:run": 2_000_000_000})
        pipeline.execute()


def end(client: redis.Redis, queue: FairQueue, job_ids: Iterable[str]) -> None:
    """What a worker's MULTI does when jobs have ended."""
    with client.pipeline() as pipeline:
        for job_id in job_ids:
            pipeline.lrem(queue.intermediate_queue_key, 1, job_id)
            pipeline.zrem(queue.started_job_registry.key, f"{job_id}:run")
            pipeline.hset(Job.redis_job_namespace_prefix + job_id, "status", "finished")
            queue.release(pipeline, job_id)
        pipeline.execute()
