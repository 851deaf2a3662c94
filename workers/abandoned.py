"""Jobs whose worker has disappeared: back to the queue, or failed when no attempts are left.

What rq's own ``StartedJobRegistry.cleanup`` does, behind a fence. rq reads which leases have run out, then writes; a
worker that was only cut off may settle a job in between, which would then be queued again although it is answered.
"""

from __future__ import annotations

import logging
import time
from typing import cast

import redis
from rq.exceptions import NoSuchJobError
from rq.job import JobStatus
from rq.registry import (
    DeferredJobRegistry,
    FailedJobRegistry,
    FinishedJobRegistry,
    ReadyJobRegistry,
    StartedJobRegistry,
)
from rq.utils import as_text, parse_composite_key

from workers.fair_queue import FairQueue
from workers.outbox import OutboxJob

log = logging.getLogger("palaver.maintenance")

#: Leases looked at in one round; more wait for the next.
LEASES_AT_ONCE = 1_000


def clean_registries(queue: FairQueue) -> int:
    """Clean rq's registries of a queue: abandoned jobs behind a fence, the rest by rq's own code.

    Returns:
        How many abandoned jobs were requeued or failed.
    """
    for registry in (FinishedJobRegistry, FailedJobRegistry, DeferredJobRegistry, ReadyJobRegistry):
        registry(queue.name, connection=queue.connection, job_class=OutboxJob, serializer=queue.serializer).cleanup()
    return end_abandoned(queue)


def end_abandoned(queue: FairQueue) -> int:
    """Requeue or fail every job whose lease has run out.

    Returns:
        How many.
    """
    client: redis.Redis = queue.connection
    key = StartedJobRegistry.key_template.format(queue.name)
    leases = client.zrangebyscore(key, "-inf", time.time(), start=0, num=LEASES_AT_ONCE)
    return sum(_end_one(queue, key, as_text(cast("bytes", lease))) for lease in leases)


def _end_one(queue: FairQueue, key: str, lease: str) -> bool:
    """One job; whatever touches it meanwhile, above all the end that its worker writes, undoes this."""
    job_id, execution_id = parse_composite_key(lease)
    with queue.connection.pipeline() as pipeline:
        pipeline.watch(OutboxJob.key_for(job_id))  # type: ignore[no-untyped-call]  # redis-py's is untyped
        try:
            job = OutboxJob.fetch(job_id, connection=queue.connection, serializer=queue.serializer)
        except (NoSuchJobError, ValueError):
            job = None
        score = queue.connection.zscore(key, lease)
        if score is None or score > time.time():
            return False  # ended or renewed by now
        pipeline.multi()
        pipeline.zrem(key, lease)
        ended = isinstance(job, OutboxJob) and _is_running(job, execution_id)
        if ended and isinstance(job, OutboxJob):
            _end(queue, job, pipeline)
        try:
            pipeline.execute()
        except redis.WatchError:
            return False
    return ended


def _is_running(job: OutboxJob, execution_id: str) -> bool:
    """Whether this execution is the job's current one: an older one leaves nothing but its lease behind."""
    return job.get_status(refresh=False) == JobStatus.STARTED and job.execution_id in ("", execution_id)


def _end(queue: FairQueue, job: OutboxJob, pipeline: redis.client.Pipeline) -> None:
    if job.should_retry:
        job.retry(queue, pipeline)
        log.warning("Job %s has lost its worker and is queued again; %s attempts left.", job.id, job.retries_left)
        return
    job.set_status(JobStatus.FAILED, pipeline=pipeline)
    job._handle_failure("abandoned: its worker disappeared", pipeline)  # noqa: SLF001 - rq's way without a worker
    log.warning("Job %s has lost its worker and no attempts are left.", job.id)
