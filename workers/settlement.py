"""Ending executions: fenced, many at a time, everything that belongs to an end in one MULTI.

The fence: the jobs are watched, then looked at, and only what this worker still owns is written (status ``started``
under our execution id, lease not cleaned away). Should anybody touch one of them before the MULTI, nothing is written
and each is tried alone. A worker that was frozen beyond its lease therefore writes nothing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import redis
from redis.client import Pipeline
from rq.utils import now

from workers import keys, scripts, usage
from workers.admission import refund
from workers.contract import AnswerReport, ArtifactRef, Failure, UsageReport
from workers.execution_slots import Slot
from workers.fair_queue import FairQueue
from workers.outbox import QUARANTINED, Ending
from workers.pictures import Pictures
from workers.results import TextWriter

log = logging.getLogger("palaver.worker")

CRASHES_TTL_S = 86_400
_WATCH_ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer is complete.

    Args:
        finish_reason: Why it ended.
        usage: That of ``generation.types.Usage``.
        images: Its pictures.
        grounds: What an answer from knowledge stands on.
    """

    finish_reason: Literal["stop", "length", "deadline"]
    usage: dict[str, Any]
    images: tuple[ArtifactRef, ...] = ()
    grounds: AnswerReport | None = None


@dataclass(frozen=True, slots=True)
class Broken:
    """There will be no answer from this attempt.

    Args:
        failure: For the user.
        retryable: Whether another attempt may help; it is made if the job has one left.
        refused: Whether a rule refused it, rather than something failing.
        rejected: Whether the payload itself was refused and is kept for inspection.
        crash: Whether it ends by an engine's death, which is counted.
    """

    failure: Failure
    retryable: bool = False
    refused: bool = False
    rejected: bool = False
    crash: bool = False


@dataclass(frozen=True, slots=True)
class Stopped:
    """Its user wanted it stopped."""


@dataclass(frozen=True, slots=True)
class GivenBack:
    """It goes back to the head of the queue without spending a retry.

    Args:
        crash: Whether an engine's death is the reason and it may be to blame, which is counted.
    """

    crash: bool = False


@dataclass(frozen=True, slots=True)
class Later:
    """It goes back for a worker of a newer release, without spending a retry.

    Args:
        pause_s: How long nobody of this queue sees it, so that the same worker does not take it again at once.
    """

    pause_s: float


Outcome = Answered | Broken | Stopped | GivenBack | Later


@dataclass(frozen=True, slots=True)
class Ended:
    """An execution and how it ended."""

    slot: Slot
    outcome: Outcome


class Settlement:
    """Writes ends for one worker.

    Args:
        queue: Where jobs go back to.
        texts: Flushed before an end is visible.
        worker_name: For rq's records.
        worker_key: rq's hash of this worker, which counts its jobs.
        pictures: Those of image jobs, which are stored before.
    """

    def __init__(
        self,
        queue: FairQueue,
        texts: TextWriter,
        worker_name: str,
        worker_key: str,
        pictures: Pictures | None = None,
        model: str | None = None,
    ) -> None:
        self._queue = queue
        self._redis: redis.Redis = queue.connection
        self._texts = texts
        self._pictures = pictures
        self._worker_name = worker_name
        self._worker_key = worker_key
        self._model = model

    def settle(self, ended: Sequence[Ended]) -> list[Ended]:
        """Write these ends.

        Returns:
            Those that were written; the rest belonged to somebody else by now.

        Raises:
            redis.RedisError: Redis is away. Whatever was written before is recognised when this is repeated.
        """
        self._texts.flush()
        try:
            return self._commit(ended)
        except redis.WatchError:
            return [done for each in ended for done in self._commit_alone(each)]

    def _commit_alone(self, ended: Ended) -> list[Ended]:
        for _ in range(_WATCH_ATTEMPTS):
            try:
                return self._commit([ended])
            except redis.WatchError:
                continue
        raise redis.ConnectionError("A job changes faster than it can be settled.")

    def _commit(self, ended: Sequence[Ended]) -> list[Ended]:
        with self._redis.pipeline() as pipeline:
            pipeline.watch(*(each.slot.job.key for each in ended))  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
            owned = self._owned(ended)
            pipeline.multi()
            retries_left = [each.slot.job.retries_left for each in owned]
            try:
                if owned:
                    self._write_all(pipeline, owned)
                    pipeline.execute()
            except redis.RedisError:
                for each, left in zip(owned, retries_left, strict=True):
                    each.slot.job.retries_left = left  # rq counts in the object, and this will be repeated
                raise
        return owned

    def _owned(self, ended: Sequence[Ended]) -> list[Ended]:
        """Those whose fence stands; makes sure that their text is complete in Redis."""
        names = [self._queue.started_job_registry.key]
        for each in ended:
            names += (each.slot.job.key, keys.text(each.slot.id))
        leases = [each.slot.execution.composite_key for each in ended]
        facts = scripts.load("fence").run(self._redis, names, leases)
        owned: list[Ended] = []
        for each, (status, execution_id, held, text_bytes) in zip(ended, facts, strict=True):
            own_id = each.slot.id
            if not held or status != b"started" or execution_id != own_id.encode():
                log.warning("Job %s is no longer ours; execution %s writes nothing.", each.slot.job.id, own_id)
                continue
            if text_bytes < self._texts.length_bytes(own_id):
                self._texts.rewrite(own_id)  # the server has lost what it had confirmed
            if self._pictures is not None:
                self._pictures.restore(own_id)
            owned.append(each)
        self._texts.flush()
        return owned

    # One MULTI

    def _write_all(self, pipeline: Pipeline, owned: Sequence[Ended]) -> None:
        runs: list[tuple[str, float, float | None]] = []
        worked_s = 0.0
        for each in owned:
            job = each.slot.job
            job.ended_at = now()
            self._write(pipeline, each)
            runs.append((job.id, 0.0, _gpu_s(each.outcome)))
            if job.started_at:
                worked_s += (job.ended_at - job.started_at).total_seconds()
        self._queue.end_runs(pipeline, runs)
        usage.record(pipeline, keys.kind_of(self._queue.name), _answers(owned), time.time())
        answered = sum(isinstance(each.outcome, Answered) for each in owned)
        failed = sum(isinstance(each.outcome, Broken) for each in owned)
        pipeline.hincrby(self._worker_key, "successful_job_count", answered)
        pipeline.hincrby(self._worker_key, "failed_job_count", failed)
        pipeline.hincrbyfloat(self._worker_key, "total_working_time", worked_s)

    def _write(self, pipeline: Pipeline, ended: Ended) -> None:
        slot, outcome = ended.slot, ended.outcome
        job = slot.job
        slot.execution.delete(job, pipeline)
        job.ending = self._ending(slot, outcome)
        self._note_suspicion(pipeline, slot, died=isinstance(outcome, (Broken, GivenBack)) and outcome.crash)
        match outcome:
            case Answered():
                job.finish(pipeline, slot.execution, self._worker_name)
            case Broken():
                self._fail(pipeline, slot, outcome)
            case Stopped():
                job.stop(pipeline)
                pipeline.delete(keys.cancel(job.id))  # the job may be requeued by hand
                refund(pipeline, job.id)
            case GivenBack():
                job.give_back(self._queue, pipeline)
            case Later(pause_s):
                job.postpone(self._queue, pipeline, pause_s)

    def _note_suspicion(self, pipeline: Pipeline, slot: Slot, *, died: bool) -> None:
        """For the job's next run: how many deaths it was at, and how far it had come at the last, if that counts."""
        if died:
            pipeline.set(keys.crashes(slot.job.id), f"{slot.crashes + 1} {slot.pieces}", ex=CRASHES_TTL_S)
        elif slot.crashes and slot.crashed_at is None:
            pipeline.set(keys.crashes(slot.job.id), f"{slot.crashes}", ex=CRASHES_TTL_S)

    def _fail(self, pipeline: Pipeline, slot: Slot, outcome: Broken) -> None:
        job = slot.job
        if outcome.retryable and job.should_retry:
            job.retry(self._queue, pipeline)
            return
        job.fail(pipeline, slot.execution, self._worker_name)
        if outcome.rejected:
            job.reject(pipeline)

    def _ending(self, slot: Slot, outcome: Outcome) -> Ending:
        text_bytes = self._texts.length_bytes(slot.id)
        match outcome:
            case Answered(finish_reason, usage, images, grounds):
                report = UsageReport(**usage, queued_s=queued_s(slot), model=self._model)
                return Ending(text_bytes, images, finish_reason, report, answer=grounds)
            case Broken(failure, refused=refused):
                return Ending(text_bytes, failure=failure, refused=refused)
            case _:
                return Ending(text_bytes)


def _gpu_s(outcome: Outcome) -> float | None:
    """What the tenant is charged for a run: what was measured, nothing for a run that is repeated or was stopped."""
    match outcome:
        case Answered(usage=usage):
            return float(usage["gpu_s"])
        case Broken():
            return None  # nobody has measured it: the estimate stands
        case _:
            return 0.0


def _answers(owned: Sequence[Ended]) -> Iterator[usage.Answer]:
    """What was answered, for the accounts of tenants and users."""
    for each in owned:
        if isinstance(each.outcome, Answered):
            request = each.slot.job.request
            yield usage.Answer(request.job_id, request.tenant, request.user, _gpu_s(each.outcome) or 0.0)


def queued_s(slot: Slot) -> float:
    """Seconds the job waited between being asked and its last start."""
    job = slot.job
    if job.enqueued_at is None or job.started_at is None:
        return 0.0
    return max(0.0, (job.started_at - job.enqueued_at).total_seconds())


def died_with(slot: Slot, culprit: Slot | None, quarantine_crashes: int) -> Outcome:
    """What becomes of an execution that was in flight when its engine died.

    Args:
        slot: The execution.
        culprit: Who is to blame, from ``suspects.culprit``; None if nobody knows yet.
        quarantine_crashes: How many deaths a culprit may cause before it is not run again.
    """
    if slot is culprit and slot.crashes + 1 >= quarantine_crashes:
        text = (
            f"This request was stopped because the model crashed {slot.crashes + 1} times while working on it. "
            "Change it before you try again."
        )
        return Broken(Failure(code=QUARANTINED, message=text), crash=True)
    return GivenBack(crash=culprit is None or slot is culprit)
