"""Stopping one job, queued or running, without its starting or ending in between."""

from __future__ import annotations

import json
import logging
import math
from typing import Literal

import redis
from rq.command import PUBSUB_CHANNEL_TEMPLATE
from rq.exceptions import NoSuchJobError
from rq.job import JobStatus
from rq.serializers import JSONSerializer

from workers import keys
from workers.admission import refund
from workers.doorbell import ring
from workers.errors import JobNotFoundError, NotAllowedError
from workers.fair_queue import FairQueue
from workers.outbox import OutboxJob

#: ``cancelled``: it was queued and never runs. ``stopping``: it runs, its worker was told. ``ended``: too late.
CancelOutcome = Literal["cancelled", "stopping", "ended"]

_WAITING = frozenset({JobStatus.QUEUED, JobStatus.SCHEDULED, JobStatus.DEFERRED})
_CANCEL_FLAG_MARGIN_S = 600

_logger = logging.getLogger("palaver.client")


def cancel(connection: redis.Redis, job_id: str, user: str, moderator: bool) -> CancelOutcome:
    """Stop a job; see ``Client.cancel``, which is this for asyncio.

    Raises:
        JobNotFoundError: No such job, or it has expired.
        NotAllowedError: It is somebody else's.
    """
    with connection.pipeline(transaction=True) as pipeline:
        while True:
            # The job must not start, or end, between the look at its status and what is done about it.
            pipeline.watch(OutboxJob.key_for(job_id))  # type: ignore[no-untyped-call]  # redis-py's is untyped
            job = _fetch(connection, job_id)
            if not moderator and job.request.user != user:
                raise NotAllowedError("Only the person who asked, or a moderator, can stop this.")
            try:
                return _cancel_watched(job, pipeline)
            except redis.WatchError:
                continue


def _cancel_watched(job: OutboxJob, pipeline: redis.client.Pipeline) -> CancelOutcome:
    status = job.get_status(refresh=False)
    outcome: CancelOutcome
    if status in _WAITING:
        outcome = "cancelled"
        pipeline.multi()
        job.cancel(pipeline=pipeline)
        queue = FairQueue(job.origin, connection=job.connection, serializer=JSONSerializer)
        queue.remove(job, pipeline=pipeline)
        refund(pipeline, job.id)
        ring(pipeline, job.origin, [job.id])
    elif status == JobStatus.STARTED:
        outcome = "stopping"
        pipeline.multi()
        # The flag reaches the worker even if the message is lost, and the next worker if this one dies.
        pipeline.set(keys.cancel(job.id), "1", ex=math.ceil(job.request.timeout_s) + _CANCEL_FLAG_MARGIN_S)
        command = json.dumps({"command": "stop-job", "job_id": job.id})
        pipeline.publish(PUBSUB_CHANNEL_TEMPLATE % job.worker_name, command)
    else:
        return "ended"
    pipeline.execute()
    _logger.info("Job %s: %s.", job.id, outcome)
    return outcome


def _fetch(connection: redis.Redis, job_id: str) -> OutboxJob:
    try:
        job = OutboxJob(job_id, connection=connection, serializer=JSONSerializer)
        job.refresh()  # type: ignore[no-untyped-call]  # as above
    except (NoSuchJobError, ValueError):  # rq refuses some characters in ids
        raise JobNotFoundError("There is no such job, or it has expired.") from None
    return job
