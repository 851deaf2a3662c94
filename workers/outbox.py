"""Jobs whose lifecycle events are written in the same MULTI as rq's own state change (a transactional outbox).

Whatever moves a job through rq's own code, be it a worker, ``rq requeue`` or the cleanup of abandoned jobs, tells
its front-end as well, and never tells what did not happen. The live hash (``keys.live``) holds the current
execution, so that a reader can find the text, and in the end the terminal event, so that a late reader finds it too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from pydantic import ValidationError
from redis.client import Pipeline
from rq import Queue
from rq.exceptions import DeserializationError
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.utils import now, utcformat

from workers import keys, scripts
from workers.admission import end_reservation, refund
from workers.contract import (
    AnswerReport,
    ArtifactRef,
    Event,
    EventType,
    Failure,
    ReplyTo,
    Request,
    UsageReport,
    decode_request,
    encode,
)
from workers.errors import ContractError

#: Code of a job that kills the engine: it alone does not get its rate limits back, or it could be asked without end.
QUARANTINED = "quarantined"
EVENTS_KEPT = 100_000
LIVE_TTL_S = 86_400

_ABANDONED = Failure(
    code="abandoned",
    message="The worker that was answering disappeared and no attempts are left. Please ask again.",
)
#: Where the events of jobs go that no front-end reads, or has sent: nowhere. Whoever follows such a job still sees it.
NOBODY = ReplyTo(front_end="-")


@dataclass(frozen=True, slots=True)
class Ending:
    """How an execution ended; the worker sets it on the job before rq's state change is written.

    Args:
        text_bytes: Length of the UTF-8 text written, the whole answer if it finished.
        images: Its pictures, all of them stored.
        finish_reason: Why a complete answer ended.
        usage: What it took.
        failure: Why there is no complete answer.
        refused: Whether a rule refused the request or its answer, rather than something failing.
        answer: What an answer from knowledge stands on.
    """

    text_bytes: int = 0
    images: tuple[ArtifactRef, ...] = ()
    finish_reason: Literal["stop", "length", "deadline"] | None = None
    usage: UsageReport | None = None
    failure: Failure | None = None
    refused: bool = False
    answer: AnswerReport | None = None


class OutboxJob(Job):
    """An rq job that reports its life to the front-end it came from.

    Attributes:
        execution_id: The current execution; set by the worker before ``prepare_for_execution``.
        attempt: Number of starts so far.
        ending: How the current execution ended; set by the worker before it finalises the job.
    """

    execution_id: str = ""
    attempt: int = 0
    ending: Ending = Ending()
    _request: Request | None = None
    _leases: StartedJobRegistry | None = None

    @property
    def request(self) -> Request:
        """What the job asks for.

        Raises:
            ContractError: The payload is malformed or of a version that this process does not speak.
        """
        if self._request is None:
            request = decode_request(self._payload())
            if request.job_id != self.id:
                raise ContractError("The request names another job than the one it arrived in.")
            self._request = request
        return self._request

    def _payload(self) -> dict[str, Any]:
        try:
            payload = self.kwargs.get("request")
        except (DeserializationError, AttributeError):
            raise ContractError("The job's arguments cannot be read: they are not JSON.") from None
        if not isinstance(payload, dict):
            raise ContractError("The job carries no request.")
        return payload

    @property
    def reply(self) -> ReplyTo | None:
        """Where its events go: even a request of an unknown version is answered if its address can be read."""
        try:
            return self.request.reply
        except ContractError:
            pass
        try:
            return ReplyTo.model_validate(self._payload().get("reply"))
        except (ContractError, ValidationError):
            return None

    @property
    def started_job_registry(self) -> StartedJobRegistry:
        """The registry of leases; kept, because rq asks for it several times in a job's life."""
        if self._leases is None:
            self._leases = StartedJobRegistry(
                self.origin, connection=self.connection, job_class=OutboxJob, serializer=self.serializer
            )
        return self._leases

    @started_job_registry.setter
    def started_job_registry(self, registry: StartedJobRegistry) -> None:
        self._leases = registry

    # What rq reads and writes

    def to_dict(self, include_meta: bool = True, include_result: bool = True) -> dict[str, Any]:
        """The job's hash, with the fields that fair queuing reads beside rq's own."""
        fields: dict[str, Any] = super().to_dict(include_meta=include_meta, include_result=include_result)
        try:
            fields["cost_gpu_s"] = self.request.cost_gpu_s
            fields["user"] = self.request.user
        except ContractError:
            pass  # a job of another tool, or of a newer release whose own fields are already in the hash
        return fields

    def restore(self, raw_data: dict[bytes, bytes]) -> None:
        """Read the job's hash."""
        super().restore(raw_data)
        self.execution_id = raw_data.get(b"execution_id", b"").decode()
        attempt = raw_data.get(b"attempt", b"")
        self.attempt = int(attempt) if attempt.isdigit() else 0

    def prepare_for_execution(self, worker_name: str, pipeline: Pipeline) -> None:
        """Start: rq's fields, the execution that now owns the job, and ``started``."""
        super().prepare_for_execution(worker_name, pipeline)
        self.attempt += 1
        pipeline.hset(self.key, mapping={"execution_id": self.execution_id, "attempt": self.attempt})
        self._tell(pipeline, "started")

    def set_status(self, status: JobStatus, pipeline: Pipeline | None = None) -> None:
        """Every way back to the queue opens a new life; every way to cancel a job ends it."""
        super().set_status(status, pipeline=pipeline)
        if pipeline is None:
            return
        if status in (JobStatus.QUEUED, JobStatus.SCHEDULED):
            live = keys.live(self.id)
            pipeline.hdel(live, "final")
            pipeline.hset(live, "state", "queued")
            pipeline.expire(live, LIVE_TTL_S)
        elif status == JobStatus.CANCELED:
            self._end(pipeline, "cancelled")
            pipeline.expire(self.key, self.get_result_ttl(LIVE_TTL_S))

    def retry(self, queue: Queue, pipeline: Pipeline) -> None:
        """Back to the queue after a failed attempt; unlike rq's own, all of it is in the pipeline."""
        interval_s = self.get_retry_interval()
        if interval_s:
            self.retries_left = (self.retries_left or 1) - 1
            queue.schedule_job(self, now() + timedelta(seconds=interval_s), pipeline=pipeline)
        else:
            super().retry(queue, pipeline)
        self._tell(pipeline, "retrying")

    def finish(self, pipeline: Pipeline, execution: Execution, worker_name: str) -> None:
        """A running job has its complete answer; ``ending`` says what came of it.

        What rq's ``_handle_success`` writes, without writing the unchanged payload again.
        """
        ttl_s = self.get_result_ttl(LIVE_TTL_S)
        self._status = JobStatus.FINISHED
        self._result = {"execution_id": execution.id, "finish_reason": self.ending.finish_reason}
        ended_at = utcformat(self.ended_at) if self.ended_at else ""
        pipeline.hset(self.key, mapping={"status": self._status, "ended_at": ended_at})
        pipeline.expire(self.key, ttl_s)
        Result.create(
            self,
            Result.Type.SUCCESSFUL,
            ttl=ttl_s,
            return_value=self._result,
            worker_name=worker_name,
            pipeline=pipeline,
            execution_id=execution.id,
            execution_started_at=execution.created_at,
            execution_ended_at=self.ended_at,
        )
        self.finished_job_registry.add(self, ttl_s, pipeline)
        self._end(pipeline, "finished")

    def fail(self, pipeline: Pipeline, execution: Execution, worker_name: str) -> None:
        """A running job ends without an answer; ``ending`` says why."""
        failure = self.ending.failure or _ABANDONED
        self.set_status(JobStatus.FAILED, pipeline=pipeline)
        reason = f"{failure.code}: {failure.message}"
        self._handle_failure(reason, pipeline, worker_name, execution.id, execution.created_at, self.ended_at)

    def give_back(self, queue: Queue, pipeline: Pipeline) -> None:
        """Back to the head of the queue through no fault of its own: no retry is spent."""
        self.set_status(JobStatus.QUEUED, pipeline=pipeline)
        queue.push_job_id(self.id, pipeline=pipeline, at_front=True)
        self._tell(pipeline, "retrying")

    def postpone(self, queue: Queue, pipeline: Pipeline, pause_s: float) -> None:
        """Back to the queue after a while, for another worker: no retry is spent."""
        queue.schedule_job(self, now() + timedelta(seconds=pause_s), pipeline=pipeline)
        self._tell(pipeline, "retrying")

    def stop(self, pipeline: Pipeline) -> None:
        """A running job ends because its user wants it to; it does not count as failed."""
        self.set_status(JobStatus.CANCELED, pipeline=pipeline)
        CanceledJobRegistry(self.origin, self.connection, job_class=self.__class__, serializer=self.serializer).add(
            self, pipeline=pipeline
        )

    def _handle_success(self, result_ttl: int, pipeline: Pipeline, *args: Any, **execution: Any) -> None:
        super()._handle_success(result_ttl, pipeline, *args, **execution)
        self._end(pipeline, "finished")

    def _handle_failure(self, exc_string: str, pipeline: Pipeline, *args: Any, **execution: Any) -> None:
        super()._handle_failure(exc_string, pipeline, *args, **execution)
        self._end(pipeline, "refused" if self.ending.refused else "failed")
        if self.ending.failure is not None and self.ending.failure.code == QUARANTINED:
            end_reservation(pipeline, self.id)
        else:
            refund(pipeline, self.id)

    def reject(self, pipeline: Pipeline) -> None:
        """Note a payload that was refused, so that somebody can look at it; the job itself stays with the failed."""
        pipeline.lpush(keys.rejected(), self.id)
        pipeline.ltrim(keys.rejected(), 0, keys.REJECTED_KEPT - 1)

    def report_end(self, pipeline: Pipeline) -> None:
        """Tell the end of a job that a tool without this class ended; nothing happens if it was told before."""
        self._end(pipeline, "cancelled" if self.get_status(refresh=False) == JobStatus.CANCELED else "failed")

    # A job never names code to run

    @property
    def success_callback(self) -> None:
        """None: callbacks would be imported by name, and names in a payload are not trusted."""
        return

    @property
    def failure_callback(self) -> None:
        """None, as ``success_callback``."""
        return

    @property
    def stopped_callback(self) -> None:
        """None, as ``success_callback``."""
        return

    def perform(self) -> Any:
        """Refuse to run under a stock rq worker, which would import the function by name.

        Raises:
            ContractError: Always.
        """
        raise ContractError("These jobs run on `palaver worker`, not on a stock rq worker.")

    # The outbox

    def _event(self, kind: EventType, reply: ReplyTo) -> Event:
        return Event(
            type=kind,
            job_id=self.id,
            reply=reply,
            at_s=time.time(),
            execution_id=self.execution_id or None,
            attempt=max(self.attempt, 1),
        )

    def _tell(self, pipeline: Pipeline, kind: EventType) -> None:
        reply = self.reply
        self._write(pipeline, self._event(kind, reply or NOBODY), told=_is_read(reply), ttl_s=LIVE_TTL_S)

    def _end(self, pipeline: Pipeline, kind: EventType) -> None:
        reply, ending = self.reply, self.ending
        event = self._event(kind, reply or NOBODY).model_copy(
            update={
                "text_bytes": ending.text_bytes,
                "images": ending.images if kind == "finished" else (),
                "answer": ending.answer if kind == "finished" else None,
                "finish_reason": ending.finish_reason if kind == "finished" else None,
                "usage": ending.usage,
                "failure": (ending.failure or _ABANDONED) if kind in ("failed", "refused") else None,
            }
        )
        ttl_s = max(self.get_result_ttl(LIVE_TTL_S), LIVE_TTL_S)
        self._write(pipeline, event, told=_is_read(reply), ttl_s=ttl_s)

    def _write(self, pipeline: Pipeline, event: Event, *, told: bool, ttl_s: int) -> None:
        arguments: list[scripts.Argument] = [encode(event), event.type, int(event.terminal)]
        arguments += [int(event.type == "started"), self.execution_id, event.attempt, ttl_s]
        arguments += [int(told), EVENTS_KEPT, keys.EVENTS_TTL_S, keys.doorbell(self.origin), self.id]
        stream = keys.events(event.reply.front_end)
        scripts.load("event").queue(pipeline, [keys.live(self.id), stream], arguments)


def _is_read(reply: ReplyTo | None) -> bool:
    return reply is not None and reply.front_end != NOBODY.front_end
