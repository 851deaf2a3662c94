"""Taking jobs: popped fairly, read, and started, many at a time.

One script pops N ids, one round trip reads them, one MULTI starts them all. Between the reading and the MULTI the
jobs are watched: a job that somebody cancels in that moment is not started.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field

import redis
from rq.exceptions import DeserializationError, NoSuchJobError
from rq.executions import Execution
from rq.job import JobStatus
from rq.utils import as_text, now

from workers import keys
from workers.contract import Failure
from workers.errors import ContractError, NewerContractError
from workers.execution_slots import Slot
from workers.fair_queue import FairQueue
from workers.outbox import OutboxJob
from workers.settlement import Broken, Ended, Later, Outcome, Stopped

log = logging.getLogger("palaver.worker")

#: Functions that jobs may name; nothing is ever imported by a name from a payload.
JOB_FUNCTIONS = frozenset({"palaver.chat", "palaver.image", "palaver.answer"})
#: A job of a newer release goes back for so long; maintenance then puts it into the queue again.
NEWER_PAUSE_S = 2.0
#: After so long in the queue no newer worker is coming, and whoever asked is told.
NEWER_PATIENCE_S = 3_600.0
_WATCH_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Taken:
    """What one call brought: executions to run, and some that ended at once."""

    slots: list[Slot] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Candidate:
    job: OutboxJob
    crashes: int
    crashed_at: int | None
    cancelled: bool


class Intake:
    """Pops and starts jobs for one worker.

    Args:
        queue: Where from.
        worker_name: Who holds the leases.
        lease_s: How long they last unless they are renewed.
        model: Jobs that ask for another one are not run; None where the engine's has no name.
    """

    def __init__(self, queue: FairQueue, worker_name: str, lease_s: int, model: str | None = None) -> None:
        self._queue = queue
        self._redis: redis.Redis = queue.connection
        self._registry = queue.started_job_registry
        self._worker_name = worker_name
        self._lease_s = lease_s
        self._model = model
        # Popped ids not yet started, and starts whose reply was lost: both survive an outage of Redis.
        self._popped: list[str] = []
        self._doubtful: list[Slot] = []

    def take(self, most: int) -> Taken:
        """Start up to this many jobs.

        Raises:
            redis.RedisError: Redis is away; the next call goes on where this one stopped.
        """
        if self._doubtful:
            slots, self._doubtful = self._really_started(self._doubtful), []
            return _sort(slots, self._model)
        if not self._popped and most > 0:
            self._popped = self._queue.pop_many(most)
        for _ in range(_WATCH_ATTEMPTS):
            if not self._popped:
                return Taken()
            try:
                slots = self._start(self._popped)
            except redis.WatchError:  # somebody touched one of them in between: look again
                continue
            self._popped = []
            return _sort(slots, self._model)
        return Taken()

    def _start(self, job_ids: Sequence[str]) -> list[Slot]:
        """The MULTI: every id leaves the intermediate list, and those that may run become executions."""
        slots: list[Slot] = []
        with self._redis.pipeline() as pipeline:
            pipeline.watch(*(OutboxJob.key_for(job_id) for job_id in job_ids))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            candidates = self._read(job_ids)
            pipeline.multi()
            self._queue.unlist(pipeline, job_ids)
            for job_id, candidate in zip(job_ids, candidates, strict=True):
                if candidate is None:
                    self._queue.release(pipeline, job_id)
                    continue
                job = candidate.job
                execution = Execution.create(job, self._lease_s, pipeline, self._worker_name)
                job.execution_id = execution.id
                job.prepare_for_execution(self._worker_name, pipeline)
                if job.attempt > 1 or job.ttl:  # else nothing has ever set it to expire
                    pipeline.persist(job.key)
                slots.append(Slot(job, execution, candidate.crashes, candidate.crashed_at, candidate.cancelled))
            self._doubtful = slots
            try:
                pipeline.execute()
            except redis.WatchError:
                self._doubtful = []
                raise
            self._doubtful = []
        return slots

    def _read(self, job_ids: Sequence[str]) -> list[_Candidate | None]:
        """The jobs as they are now; None for those that are gone or no longer queued."""
        with self._redis.pipeline(transaction=False) as pipeline:
            pipeline.mget(*map(keys.crashes, job_ids), *map(keys.cancel, job_ids))
            for job_id in job_ids:
                pipeline.hgetall(OutboxJob.key_for(job_id))
            marks, *rows = pipeline.execute()
        half = len(job_ids)
        return [self._candidate(*facts) for facts in zip(job_ids, rows, marks[:half], marks[half:], strict=True)]

    def _candidate(
        self, job_id: str, fields: dict[bytes, bytes], crashes: bytes | None, cancel: bytes | None
    ) -> _Candidate | None:
        if as_text(fields.get(b"status", b"")) != JobStatus.QUEUED.value:
            return None
        job = OutboxJob(job_id, connection=self._redis, serializer=self._queue.serializer)
        try:
            job.restore(fields)
        except (NoSuchJobError, ValueError):
            log.warning("Job %s has no readable hash and is dropped.", job_id)
            return None
        job.started_job_registry = self._registry
        count, _, place = (crashes or b"0").partition(b" ")
        return _Candidate(job, int(count), int(place) if place else None, cancel is not None)

    def _really_started(self, slots: Sequence[Slot]) -> list[Slot]:
        """Of starts whose reply was lost, those that happened; the others are put back by maintenance."""
        with self._redis.pipeline(transaction=False) as pipeline:
            for slot in slots:
                pipeline.hmget(slot.job.key, "status", "execution_id")
            rows = pipeline.execute()
        self._popped = []
        return [
            slot
            for slot, row in zip(slots, rows, strict=True)
            if row == [JobStatus.STARTED.value.encode(), slot.id.encode()]
        ]


def _sort(slots: Sequence[Slot], model: str | None) -> Taken:
    """Separate what can run from what ends at once."""
    taken = Taken()
    for slot in slots:
        outcome = _ends_at_once(slot, model)
        if outcome is None:
            taken.slots.append(slot)
        else:
            taken.ended.append(Ended(slot, outcome))
    return taken


def _ends_at_once(slot: Slot, model: str | None) -> Outcome | None:
    """How a job ends that must not run."""
    if slot.cancelled:
        return Stopped()
    try:
        kind, wanted = slot.job.request.kind, slot.job.request.model
        known = slot.job.func_name in JOB_FUNCTIONS and slot.job.func_name == f"palaver.{kind}"
    except NewerContractError as error:
        if _age_s(slot.job) < NEWER_PATIENCE_S:
            log.warning("Job %s is of a newer release and goes back to the queue for its workers.", slot.job.id)
            return Later(NEWER_PAUSE_S)
        reason = str(error)
    except ContractError as error:
        reason = str(error)
    except DeserializationError:
        reason = "The job's arguments cannot be read: they are not JSON."
    else:
        if known and wanted not in (None, model):
            # Whoever asked for it must not get another one's answer; the operator has changed the model meanwhile.
            text = f"The model {wanted} does not run here any more. Please choose another one, or none."
            return Broken(Failure(code="model", message=text), refused=True)
        if known:
            return None
        reason = "The job names a function that this worker does not run."
    log.warning("Job %s is refused and kept for inspection: %s", slot.job.id, reason)
    return Broken(Failure(code=ContractError.code, message=reason), rejected=True)


def _age_s(job: OutboxJob) -> float:
    return (now() - job.created_at).total_seconds() if job.created_at else 0.0
