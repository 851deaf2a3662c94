"""The loop of a worker: many jobs in flight on one engine, one thread, one turn at a time.

A turn waits for the engine, a job, an order or a time; hears the engine; then does what there is to do in Redis:
renew leases, write text, settle, admit. While Redis is away the engine goes on and what it says is kept; whatever was
due is done when Redis is back.
"""

from __future__ import annotations

import logging
import math
import select
import time
from collections.abc import Callable, Sequence
from typing import Any

import redis
from redis.client import Pipeline
from rq.suspension import WORKERS_SUSPENDED

from workers import keys
from workers.artifacts import ArtifactStore
from workers.attachments import Unfetchable
from workers.contract import Failure, Request
from workers.engine_channel import Message
from workers.engine_handle import EngineHandle
from workers.errors import ArtifactStoreError, EngineStartError, WorkersError
from workers.execution_slots import ExecutionSlots, Slot
from workers.fair_queue import FairQueue
from workers.inbox_watch import InboxWatch
from workers.intake import Intake
from workers.leases import Leases
from workers.orders import Orders
from workers.outputs import Outputs
from workers.position import SpeedMeter, report_speed
from workers.redis_connection import will_pass
from workers.settings import WorkerSettings
from workers.settlement import Answered, Broken, Ended, GivenBack, Outcome, Settlement, Stopped, died_with
from workers.suspects import culprit
from workers.worker_metrics import WorkerMetrics

#: Codes of moderation's refusals: with and without a way to appeal.
_REFUSALS = frozenset({"refused", "refused_finally"})

log = logging.getLogger("palaver.worker")

#: Engines end an answer at its deadline themselves; this much later the worker calls the attempt failed.
DEADLINE_GRACE_S = 5.0
SUSPENSION_CHECK_S = 1.0
REDIS_RETRY_S = 0.2
SETTLED_AT_ONCE = 64
#: Engines that die this often before they are ready are not started again by this worker.
STARTS = 5
#: How long a worker that must go tries to give its jobs back while Redis is away; then their leases run out.
LAST_WORDS_S = 5.0


class WorkerLoop:
    """See the module's text.

    Args:
        queue: What to work on.
        engine: What runs the jobs.
        settings: Leases, patience, limits.
        orders: What others want.
        worker_name: rq's name of this worker.
        worker_key: rq's hash of this worker.
        beat: Adds the worker's own heartbeat to a pipeline.
        artifacts: Where pictures lie.
        model: What the engine runs; None where that has no name.
    """

    def __init__(
        self,
        queue: FairQueue,
        engine: EngineHandle,
        settings: WorkerSettings,
        orders: Orders,
        worker_name: str,
        worker_key: str,
        beat: Callable[[Pipeline], None],
        artifacts: ArtifactStore,
        model: str | None = None,
    ) -> None:
        lease_s = math.ceil(settings.lease_s)
        self._queue = queue
        self._redis: redis.Redis = queue.connection
        self._engine = engine
        self._settings = settings
        self._orders = orders
        self._beat_worker = beat
        self._outputs = Outputs(self._redis, queue.name, settings.result_ttl_s, artifacts, orders.ring)
        self._intake = Intake(queue, worker_name, lease_s, model)
        self._leases = Leases(self._redis, lease_s)
        outputs = self._outputs
        self._settlement = Settlement(queue, outputs.texts, worker_name, worker_key, outputs.pictures, model)
        self._watch = InboxWatch(queue, orders.ring)
        self._speed = SpeedMeter()
        self._worker_name = worker_name
        self.slots = ExecutionSlots(capacity=0)
        self._metrics = WorkerMetrics(keys.kind_of(queue.name))
        self._metrics.watch(self.slots)
        self._ended: list[Ended] = []
        self._give_up_at: float | None = None
        self._beat_at = self._flush_at = self._suspension_at = self._redis_at = 0.0
        self._output_waits = self._suspended = False
        self._outage_since: float | None = None
        self._failed_starts = 0
        self.settled = 0

    def run(self, burst: bool = False) -> None:
        """Take turns until told to stop, or in burst mode until there is nothing to do.

        Raises:
            EngineStartError: The engine cannot be started.
        """
        try:
            while not self._done(burst):
                self._turn()
        finally:
            self._watch.close()
            self._last_words()
            self._outputs.close()
            self._engine.stop()

    def _done(self, burst: bool) -> bool:
        if self.slots or self._ended:
            return False
        return self._orders.shutdowns > 0 or (burst and (self._watch.armed or self._suspended))

    def _turn(self) -> None:
        self._wait()
        self._orders.hush()
        self._tend_engine()
        self._obey()
        self._time_out()
        if time.monotonic() < self._redis_at:
            return
        try:
            self._renew()
            self._write_output()
            self._settle()
            self._admit()
        except redis.RedisError as error:
            if not will_pass(error):
                raise
            self._redis_away(error)
        else:
            self._redis_is_there()

    # Waiting

    def _wait(self) -> None:
        """Sleep until something happens or is due."""
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        channel = self._engine.channel
        if channel is not None and not channel.closed:
            poll.register(channel, select.POLLIN | (select.POLLOUT if channel.unsent_bytes else 0))
        due_in_s = max(0.0, self._due_at() - time.monotonic())
        poll.poll(math.ceil(due_in_s * 1000))

    def _due_at(self) -> float:
        """When the next thing is due, by the monotonic clock."""
        due = [self.slots.next_deadline_at()]
        if not self._engine.running:
            due.append(time.monotonic() + self._engine.start_in_s)
        if self._give_up_at is not None:
            due.append(self._give_up_at)
        in_redis = [self._beat_at]
        if self._output_waits:
            in_redis.append(self._flush_at)
        if self._may_admit() or any(not self._outputs.pictures.busy(each.slot.id) for each in self._ended):
            in_redis.append(0.0)
        if self._suspended:
            in_redis.append(self._suspension_at)
        return min(*due, max(min(in_redis), self._redis_at))

    # The engine

    def _tend_engine(self) -> None:
        """Hear what the engine says; start it if there is none; notice its end."""
        if self._orders.kill_engine:
            self._orders.kill_engine = False
            self._engine.kill_process()
        if not self._engine.running:
            if self._engine.start_in_s == 0 and not self._orders.shutdowns:
                self._engine.start()
            return
        was_ready = self._engine.ready
        try:
            messages = self._engine.receive()
            died = self._engine.died()
        except EngineStartError as error:
            self._not_started(error)
            return
        if self._engine.ready and not was_ready and self._engine.info is not None:
            self._failed_starts = 0
            self.slots.capacity = self._engine.info.capacity
            self._beat_at = 0.0  # tell who looks at the list of workers
            log.info("The engine is ready: %s on %s.", self._engine.info.model, self._engine.info.device)
        for message in messages:
            self._hear(message)
        if died:
            self._engine_died()
        else:
            self._engine.flush()
            self._cut(self.slots.acquit(), GivenBack())
            self._feed()

    def _hear(self, message: Message) -> None:
        if message[0] == "raised":
            self._step_raised(*message[1:])
            return
        if message[0] == "judged":
            self._metrics.judged(message[1])
            return
        slot = self.slots.get(message[1])
        if slot is None:
            return  # cancelled in the meantime
        if self._outputs.hear(slot, message):
            if not slot.pieces:  # somebody is waiting for the first word
                self._flush_at = 0.0
            slot.pieces += 1
            self._output_waits = True
        match message:
            case ["finished", _, reason, usage]:
                images, grounds = self._outputs.pictures.refs(slot.id), self._outputs.grounds.get(slot.id)
                self._end(slot, Answered(reason, usage, images, grounds))
            case ["failed", _, code, text, retryable]:
                self._end(slot, Broken(Failure(code=code, message=text), retryable, refused=code in _REFUSALS))

    def _step_raised(self, ids: list[str], code: str, text: str, retryable: bool) -> None:
        """One request made the whole step fail: that is as if the engine had died of it."""
        involved = [slot for slot in map(self.slots.get, ids) if slot is not None]
        to_blame = culprit(involved)
        for slot in involved:
            if slot is to_blame and not retryable:
                self._end(slot, Broken(Failure(code=code, message=text)))
            else:
                self._end(slot, died_with(slot, to_blame, self._settings.quarantine_crashes))

    def _engine_died(self) -> None:
        in_flight = [slot for slot in self.slots if slot.submitted]
        was_ready = self._engine.ready
        status = self._engine.bury()
        self._metrics.engine_died()
        log.error("The engine died (exit status %s) with %d jobs in flight.", status, len(in_flight))
        to_blame = culprit(in_flight)
        for slot in self.slots:
            died = died_with(slot, to_blame, self._settings.quarantine_crashes)
            self._end(slot, died if slot.submitted else GivenBack())
        if not was_ready:
            self._not_started(EngineStartError(f"The engine process died while starting (exit status {status})."))

    def _not_started(self, error: EngineStartError) -> None:
        self._failed_starts += 1
        if self._engine.running:
            self._engine.bury()
        if error.permanent or self._failed_starts >= STARTS:
            raise error
        log.error("%s Trying again.", error)

    def _feed(self) -> None:
        """Give the engine what it may run now."""
        if not self._engine.ready:
            return
        now_s = time.monotonic()
        requests = []
        for slot in self.slots.runnable():
            request = slot.job.request
            timeout_s = request.timeout_s
            match self._outputs.attachments.body(slot):
                case None:
                    continue
                case Unfetchable(failure, retryable):
                    self._end(slot, Broken(failure, retryable, refused=not retryable))
                case body:
                    self._outputs.attachments.forget(slot.id)
                    slot.deadline_at = now_s + timeout_s + DEADLINE_GRACE_S
                    requests.append((slot.id, {**body, "origin": origin(request)}, timeout_s))
        self._engine.submit(requests)

    # Ends

    def _end(self, slot: Slot, outcome: Outcome) -> None:
        self.slots.take(slot.id)
        self._outputs.end(slot.id, isinstance(outcome, Answered))
        self._ended.append(Ended(slot, outcome))

    def _cut(self, slots: Sequence[Slot], outcome: Outcome) -> None:
        """End executions that the engine is still busy with."""
        for slot in slots:
            self._end(slot, outcome)
        self._engine.cancel([slot.id for slot in slots if slot.submitted])

    def _obey(self) -> None:
        while self._orders.stops:
            wanted = self._orders.stops.popleft()
            slot = self.slots.get(wanted) or self.slots.of_job(wanted)
            if slot is not None:
                self._cut([slot], Stopped())
        if not self._orders.shutdowns:
            return
        if self._give_up_at is None:
            log.info("Shutting down: %d jobs may finish within %.0f s.", len(self.slots), self._settings.drain_s)
            self._give_up_at = time.monotonic() + self._settings.drain_s
            self._cut([slot for slot in self.slots if not slot.submitted], GivenBack())
        if self._orders.shutdowns > 1 or time.monotonic() >= self._give_up_at:
            self._cut(list(self.slots)[::-1], GivenBack())  # reversed: each goes to the head of the queue

    def _time_out(self) -> None:
        text = "The answer took too long and was stopped. Try again, or ask for a shorter one."
        self._cut(self.slots.overdue(time.monotonic()), Broken(Failure(code="timeout", message=text), retryable=True))

    # Redis

    def _renew(self) -> None:
        """Before anything else is written: a worker that was frozen must first learn what it has lost."""
        if time.monotonic() < self._beat_at:
            return
        self._engine.ping()
        held = [*self.slots, *(each.slot for each in self._ended)]
        with self._redis.pipeline(transaction=False) as pipeline:
            self._beat_worker(pipeline)
            self._report_speed(pipeline)
            renewal = self._leases.renew(held, pipeline)
        self._beat_at = time.monotonic() + self._settings.heartbeat_s
        for slot in renewal.lost:
            log.warning("Job %s is no longer ours; execution %s is dropped.", slot.job.id, slot.id)
            self._outputs.forget(slot.id)
        self._metrics.leases_lost(len(renewal.lost))
        lost = {slot.id for slot in renewal.lost}
        self._ended = [each for each in self._ended if each.slot.id not in lost]
        self._engine.cancel([slot.id for slot in renewal.lost if self.slots.take(slot.id)])
        self._cut([slot for slot in renewal.cancelled if self.slots.get(slot.id)], Stopped())
        if renewal.undone:
            log.warning("The server forgot the end of %d jobs; writing them again.", len(renewal.undone))
            self._ended.extend(renewal.undone)
        for each in renewal.durable:
            self._outputs.forget(each.slot.id)

    def _report_speed(self, pipeline: Pipeline) -> None:
        if self._speed.seconds_per_job is not None and self.slots.capacity:
            report_speed(
                pipeline, self._queue.name, self._worker_name, self.slots.capacity, self._speed.seconds_per_job
            )

    def _write_output(self) -> None:
        now_s = time.monotonic()
        if self._output_waits and now_s >= self._flush_at:
            self._outputs.flush()
            self._output_waits = False
            self._flush_at = now_s + self._settings.flush_ms / 1000

    def _settle(self) -> None:
        while batch := self._settleable()[:SETTLED_AT_ONCE]:
            written = self._settlement.settle(batch)
            self._ended = [each for each in self._ended if each not in batch]
            self._leases.remember(written)
            self.settled += len(written)
            self._metrics.ended(written)
            for each in written:
                if isinstance(each.outcome, Answered):
                    self._speed.observe(float(each.outcome.usage["duration_s"]))

    def _settleable(self) -> list[Ended]:
        """Ends that may be told: whatever pictures they have are in the store, or cannot be put there."""
        settleable = []
        for at, each in enumerate(self._ended):
            try:
                if not self._outputs.pictures.stored(each.slot.id):
                    continue
            except WorkersError as error:
                self._outputs.pictures.discard(each.slot.id)
                failure = Failure(code=error.code, message=str(error))
                broken = Broken(failure, retryable=isinstance(error, ArtifactStoreError))
                self._ended[at] = Ended(each.slot, broken)
            settleable.append(self._ended[at])
        return settleable

    def _may_admit(self) -> bool:
        return (
            self._engine.ready
            and not self._orders.shutdowns
            and not self._suspended
            and not self._watch.armed
            and self.slots.free > 0
        )

    def _admit(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._suspension_at:
            self._suspended = bool(self._redis.exists(WORKERS_SUSPENDED))
            self._suspension_at = now_s + SUSPENSION_CHECK_S
        if not self._may_admit():
            return
        wanted = self.slots.free
        taken = self._intake.take(wanted)
        self.slots.add(taken.slots)
        self._ended.extend(taken.ended)
        if len(taken.slots) + len(taken.ended) < wanted:
            self._watch.arm()
        self._feed()

    def _redis_away(self, error: redis.RedisError) -> None:
        now_s = time.monotonic()
        if self._outage_since is None:
            self._outage_since = now_s
            self._metrics.redis_away()
            log.warning("Redis is away (%s); the engine goes on.", type(error).__name__)
        self._redis_at = now_s + REDIS_RETRY_S
        self._beat_at = 0.0  # when it is back, leases come first

    def _redis_is_there(self) -> None:
        if self._outage_since is not None:
            log.warning("Redis is back after %.1f s.", time.monotonic() - self._outage_since)
            self._outage_since = None

    def _last_words(self) -> None:
        """However the loop ends, give back what is left."""
        self._cut(list(self.slots)[::-1], GivenBack())
        until_s = time.monotonic() + LAST_WORDS_S
        while self._ended and time.monotonic() < until_s:
            try:
                self._settle()
            except redis.RedisError:
                time.sleep(REDIS_RETRY_S)


def origin(request: Request) -> dict[str, Any]:
    """What the engine process is told of whose request it is."""
    policy = request.policy.model_dump(mode="json", exclude_defaults=True) if request.policy else None
    return {"job_id": request.job_id, "tenant": request.tenant, "user": request.user, "policy": policy}
