"""What one worker counts: at each settlement for all that ended, at each renewal for what was lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rq.job import JobStatus

from workers import metrics, tracing
from workers.outbox import QUARANTINED
from workers.settlement import Answered, Broken, Ended, Stopped, queued_s

if TYPE_CHECKING:
    from workers.execution_slots import ExecutionSlots


class WorkerMetrics:
    """Counters of one kind.

    Args:
        kind: The worker's.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._waits = metrics.QUEUE_WAIT.labels(kind)
        self._first_tokens = metrics.FIRST_TOKEN.labels(kind)
        self._latencies = metrics.JOB_LATENCY.labels(kind)
        self._engine_restarts = metrics.ENGINE_RESTARTS.labels(kind)
        self._leases_lost = metrics.LEASES_LOST.labels(kind)
        self._outages = metrics.REDIS_OUTAGES.labels(kind)
        for end in ("finished", "failed", "refused", "cancelled", "retried", "given_back", "quarantined"):
            metrics.JOBS.labels(kind, end)  # there from the start, so that a first failure is a rise from 0

    def watch(self, slots: ExecutionSlots) -> None:
        """Tell how full the batch is whenever somebody asks."""
        metrics.SLOTS.labels(self._kind).set_function(lambda: slots.capacity)
        metrics.IN_FLIGHT.labels(self._kind).set_function(lambda: len(slots))

    def ended(self, written: Sequence[Ended]) -> None:
        """These ends have been written."""
        for each in written:
            end = _end(each)
            metrics.JOBS.labels(self._kind, end).inc()
            _trace(each, end)
            if isinstance(each.outcome, Answered):
                self._answered(each, each.outcome)

    def judged(self, verdicts: Sequence[tuple[str, str, int]]) -> None:
        """Moderation in the engine acted: category, action and how often."""
        for category, action, count in verdicts:
            metrics.VERDICTS.labels(category, action).inc(count)

    def engine_died(self) -> None:
        """An engine died and is started again."""
        self._engine_restarts.inc()

    def leases_lost(self, count: int) -> None:
        """So many jobs are another worker's now."""
        self._leases_lost.inc(count)

    def redis_away(self) -> None:
        """An outage of Redis has begun."""
        self._outages.inc()

    def _answered(self, ended: Ended, outcome: Answered) -> None:
        request, usage, waited_s = ended.slot.job.request, outcome.usage, queued_s(ended.slot)
        self._waits.observe(waited_s)
        self._first_tokens.observe(waited_s + float(usage.get("ttft_s", 0.0)))
        self._latencies.observe(max(0.0, time.time() - request.created_at_s))
        for part in ("prompt", "cached", "completion"):
            metrics.TOKENS.labels(self._kind, part).inc(int(usage.get(f"{part}_tokens", 0)))
        metrics.IMAGE_STEPS.inc(int(usage.get("image_steps", 0)))
        gpu_s = max(0.0, float(usage.get("gpu_s", 0.0)))
        metrics.GPU_SECONDS.labels(self._kind, metrics.TENANTS.of(request.tenant)).inc(gpu_s)


def _trace(ended: Ended, end: str) -> None:
    """The road so far of an execution that has ended."""
    job = ended.slot.job
    reply, started_at, ended_at = job.reply, job.started_at, job.ended_at
    if reply is None or reply.trace is None or started_at is None or ended_at is None:
        return
    usage = ended.outcome.usage if isinstance(ended.outcome, Answered) else {}
    told = {f"palaver.{name}": usage[name] for name in ("completion_tokens", "image_steps", "gpu_s") if name in usage}
    begun_s = (job.enqueued_at or started_at).timestamp()
    tracing.passed("queued", job.id, reply, begun_s, started_at.timestamp(), {"palaver.attempt": job.attempt})
    attributes = {"palaver.attempt": job.attempt, "palaver.end": end, **told}
    tracing.passed("engine", job.id, reply, started_at.timestamp(), ended_at.timestamp(), attributes)


def _end(ended: Ended) -> str:
    match ended.outcome:
        case Answered():
            return "finished"
        case Stopped():
            return "cancelled"
        case Broken(failure, refused=refused):
            if failure.code == QUARANTINED:
                return "quarantined"
            if refused:
                return "refused"
            # What settlement has just decided: a job with attempts left went back to the queue.
            return "failed" if ended.slot.job.get_status(refresh=False) == JobStatus.FAILED else "retried"
        case _:
            return "given_back"
