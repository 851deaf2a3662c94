"""What is known of one job, for operators: where it stands and what became of it, never what was asked or answered."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import cast

import redis
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.job import JobStatus
from rq.registry import BaseRegistry, CanceledJobRegistry, FailedJobRegistry
from rq.serializers import JSONSerializer

from workers import keys
from workers.contract import TERMINAL_EVENTS, decode_event, tenant_of
from workers.errors import ContractError, JobNotFoundError, NotAllowedError
from workers.outbox import OutboxJob


@dataclass(frozen=True, slots=True)
class JobRecord:
    """One job.

    Attributes:
        status: rq's word for where it stands.
        kind: Which queue.
        user: Who asked; None if its payload cannot be read.
        attempt: Starts so far.
        crashes: Engine deaths that it was in flight at.
        ended: ``finished``, ``failed``, ``refused`` or ``cancelled``, while that is kept.
        failure_code: Why there is no answer.
        failure: The same in words.
        gpu_s: What it took.
        contract: What is wrong with its payload, if anything is.
    """

    job_id: str
    status: str
    kind: str
    tenant: str
    user: str | None
    worker: str | None
    attempt: int
    crashes: int
    cost_gpu_s: float | None
    created_at: str | None
    enqueued_at: str | None
    started_at: str | None
    ended_at: str | None
    ended: str | None
    failure_code: str | None
    failure: str | None
    gpu_s: float | None
    contract: str | None


def fetch(client: redis.Redis, job_id: str) -> OutboxJob:
    """The job.

    Raises:
        JobNotFoundError: There is none, or it has expired.
    """
    try:
        job = OutboxJob(job_id, connection=client, serializer=JSONSerializer)
        job.refresh()  # type: ignore[no-untyped-call]  # rq leaves it untyped
    except (NoSuchJobError, ValueError):  # rq refuses some characters in ids
        raise JobNotFoundError(f"There is no job {job_id[:200]!r}, or it has expired.") from None
    return job


def record_of(client: redis.Redis, job_id: str) -> JobRecord:
    """What is known of a job.

    Raises:
        JobNotFoundError: There is none, or it has expired.
    """
    job = fetch(client, job_id)
    final, crashes = client.hget(keys.live(job_id), "final"), client.get(keys.crashes(job_id))
    user, cost_gpu_s, contract = None, None, None
    try:
        user, cost_gpu_s = job.request.user, job.request.cost_gpu_s
    except ContractError as error:
        contract = str(error)
    event = decode_event(cast("bytes", final)) if final else None
    failure = event.failure if event else None
    return JobRecord(
        job_id=job_id,
        status=str(job.get_status(refresh=False).value),
        kind=str(job.origin),
        tenant=tenant_of(job_id),
        user=user,
        worker=job.worker_name or None,
        attempt=job.attempt,
        crashes=int(cast("bytes", crashes or b"0").split()[0]),
        cost_gpu_s=cost_gpu_s,
        created_at=_iso(job.created_at),
        enqueued_at=_iso(job.enqueued_at),
        started_at=_iso(job.started_at),
        ended_at=_iso(job.ended_at),
        ended=event.type if event and event.type in TERMINAL_EVENTS else None,
        failure_code=failure.code if failure else None,
        failure=failure.message if failure else None,
        gpu_s=event.usage.gpu_s if event and event.usage else None,
        contract=contract,
    )


def requeue(client: redis.Redis, job_id: str) -> None:
    """Run a job again that failed or was cancelled; limits are not charged for it.

    Raises:
        JobNotFoundError: There is none, or it has expired.
        NotAllowedError: It has neither failed nor been cancelled.
    """
    job = fetch(client, job_id)
    registries: dict[JobStatus, type[BaseRegistry]] = {
        JobStatus.FAILED: FailedJobRegistry,
        JobStatus.CANCELED: CanceledJobRegistry,
    }
    status = job.get_status(refresh=False)
    registry = registries.get(status)
    if registry is None:
        raise NotAllowedError(f"Job {job_id} is {status.value}: only failed and cancelled jobs can be run again.")
    client.delete(keys.cancel(job_id), keys.crashes(job_id))
    try:
        registry(job.origin, client, job_class=OutboxJob, serializer=JSONSerializer).requeue(job)
    except InvalidJobOperation:
        raise NotAllowedError(f"Job {job_id} is in no list of failed or cancelled jobs any more.") from None


def _iso(at: datetime | None) -> str | None:
    return at.isoformat(timespec="milliseconds") if at else None
