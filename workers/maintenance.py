"""Repairs that somebody has to make from time to time, whatever died: under a lock, so that one process does.

rq's registries are cleaned, abandoned jobs behind a fence (``workers.abandoned``); what rq does not know is added:
slots and popped ids of dead workers, ends that were written by tools without our job class, due retries, charges of
jobs that never reached the queue, entries of workers that are gone.
"""

from __future__ import annotations

import json
import logging
import time
from typing import cast

import redis
from rq import worker_registration
from rq.job import JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, ScheduledJobRegistry
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.utils import as_text, now

from workers import keys
from workers.abandoned import clean_registries
from workers.admission import refund_unqueued
from workers.artifacts import ArtifactStore
from workers.errors import ArtifactStoreError
from workers.fair_queue import FairQueue
from workers.outbox import LIVE_TTL_S, OutboxJob

log = logging.getLogger("palaver.maintenance")

#: Ends looked at in one round; more wait for the next.
ENDS_AT_ONCE = 500
#: A worker that has reported nothing for this long is gone.
WORKER_SILENT_S = 60.0
#: A picture is deleted at most this much after its time.
SWEEP_EVERY_S = 600.0


class Maintenance:
    """Keeps one queue in order.

    Args:
        queue: Which one.
        artifacts: Whose pictures are deleted when their time is over.
    """

    def __init__(self, queue: FairQueue, artifacts: ArtifactStore | None = None) -> None:
        self._queue = queue
        self._artifacts = artifacts
        self._sweep_at_s = 0.0
        self._redis: redis.Redis = queue.connection

    def tick(self) -> bool:
        """Do what there is to do, unless another process is at it; returns whether this one was.

        Raises:
            redis.RedisError: Redis is away; the next tick does it.
        """
        if not self._queue.acquire_maintenance_lock():
            return False
        try:
            clean_registries(self._queue)
            worker_registration.clean_worker_registry(self._queue)
            rescued, freed = self._queue.reconcile()
            if rescued or freed:
                log.warning("Put back %d jobs and freed %d slots of dead workers.", rescued, freed)
            self._enqueue_due_retries()
            self._report_ends()
            self._forget_cancelled()
            if refunded := refund_unqueued(self._redis):
                log.warning("Gave back what %d jobs were charged that never reached the queue.", refunded)
            self._forget_workers()
            self._sweep_artifacts()
        finally:
            self._queue.release_maintenance_lock()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        return True

    def _enqueue_due_retries(self) -> None:
        """What rq's scheduler process does, once a tick: only retries with an interval are ever scheduled here."""
        if not ScheduledJobRegistry(queue=self._queue).get_job_count(cleanup=False):  # type: ignore[no-untyped-call]  # rq leaves it untyped
            return
        scheduler = RQScheduler([self._queue], connection=self._redis, serializer=JSONSerializer)
        if scheduler.acquire_locks():  # type: ignore[no-untyped-call]  # rq leaves it untyped
            try:
                scheduler.enqueue_scheduled_jobs()  # type: ignore[no-untyped-call]  # rq leaves it untyped
            finally:
                scheduler.release_locks()  # type: ignore[no-untyped-call]  # rq leaves it untyped

    def _report_ends(self) -> None:
        """Tell front-ends of jobs that a tool without our job class has failed or cancelled."""
        name = self._queue.name
        ids = [
            as_text(cast("bytes", job_id))
            for registry in (FailedJobRegistry(name, self._redis), CanceledJobRegistry(name, self._redis))
            for job_id in self._redis.zrevrange(registry.key, 0, ENDS_AT_ONCE - 1)
        ]
        if not ids:
            return
        with self._redis.pipeline(transaction=False) as pipeline:
            for job_id in ids:
                pipeline.hexists(keys.live(job_id), "final")
            told = pipeline.execute()
        untold = [job_id for job_id, known in zip(ids, told, strict=True) if not known]
        for job in OutboxJob.fetch_many(untold, connection=self._redis, serializer=JSONSerializer):
            if isinstance(job, OutboxJob) and _ended_untold(job):
                with self._redis.pipeline() as pipeline:
                    job.report_end(pipeline)
                    pipeline.execute()
                log.warning("Job %s was ended by another tool; its front-end has been told.", job.id)

    def _forget_cancelled(self) -> None:
        """Drop old ids of cancelled jobs, which rq keeps for ever."""
        registry = CanceledJobRegistry(self._queue.name, self._redis)
        self._redis.zremrangebyscore(registry.key, "-inf", time.time() - LIVE_TTL_S)

    def _sweep_artifacts(self) -> None:
        if self._artifacts is None or time.monotonic() < self._sweep_at_s:
            return
        self._sweep_at_s = time.monotonic() + SWEEP_EVERY_S
        try:
            removed = self._artifacts.sweep()
        except ArtifactStoreError as error:
            log.warning("Old pictures stay for now: %s", error)
        else:
            log.info("Deleted %d pictures whose time is over.", removed)

    def _forget_workers(self) -> None:
        now_s = time.time()
        for name, entry in self._redis.hgetall(keys.workers()).items():
            try:
                silent = now_s - float(json.loads(entry)["at_s"]) > WORKER_SILENT_S
            except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
                silent = True
            if silent:
                self._redis.hdel(keys.workers(), name)


def _ended_untold(job: OutboxJob) -> bool:
    """Whether it has ended and is so young that its terminal event, had there been one, would still be known."""
    ended = job.get_status(refresh=False) in (JobStatus.FAILED, JobStatus.CANCELED)
    return ended and job.enqueued_at is not None and (now() - job.enqueued_at).total_seconds() < LIVE_TTL_S
