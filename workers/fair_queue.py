"""An rq queue with stock enqueue and fair dequeue.

Everything that pushes with rq's own code (enqueue, unique jobs, retries, the scheduler, requeue, clean-up, dashboards)
lands in ``rq:queue:NAME``, which is only an inbox here. Whoever pops first sorts the inbox into one lane a tenant, then
serves the lanes by start-time fair queuing (``lua/pop.lua``), so that a tenant's share of the GPU depends on its weight
and not on how much it has queued.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any, cast

from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.utils import as_text

from workers import keys, scripts
from workers.contract import tenant_of
from workers.outbox import OutboxJob

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    from redis.client import Pipeline
    from rq.worker import BaseWorker

MAX_INGEST = 64  # ids sorted in one call: at most about half a millisecond of the server's only thread
MAX_CALLS = 32  # in one pop, for sorting and for serving: a tenant behind a fresh burst of 2,000 is seen at once
CALLS_IN_A_ROW = 8  # the server serves nobody else between the commands of one pipeline
MAX_MISSES = 128  # cancelled, duplicate or parked ids passed over in one call
MAX_POP = 512
WAIT_SLICE_S = 0.25
DRAIN_BATCH = 256
MAINTENANCE_LOCK_S = 30  # rq's own 899 s would stop all repairs for that long when the cleaner is killed
RESCUE_AGE_S = 10.0  # a popped id is started within milliseconds unless its worker died


class FairIntermediateQueue(IntermediateQueue):
    """rq's list of popped but not yet started ids; what lies there for long is put back and spends no retry."""

    def cleanup(self, worker: BaseWorker, queue: Queue) -> None:
        """Called by rq's maintenance, under its lock."""
        if isinstance(queue, FairQueue):
            rescued, freed = queue.reconcile()
            if rescued or freed:
                worker.log.warning("Queue %s: put back %d jobs, freed %d slots", queue.name, rescued, freed)


class FairQueue(Queue):
    """Serves tenants fairly by GPU-seconds; see the module's text.

    The tenant is the part of a job id before ``__``; the job's hash fields ``cost_gpu_s`` and ``user`` are read too.

    Source:
        Goyal, Vin and Chen, "Start-time Fair Queuing", SIGCOMM 1996.
    """

    job_class: type[Job] = OutboxJob

    # -- taking jobs ---------------------------------------------------------------------------------------------

    def pop_many(self, n: int) -> list[str]:
        """Take up to ``n`` jobs in fair order into rq's intermediate list, atomically.

        Args:
            n: Free slots, at least 1; at most 512 are taken at once.

        Returns:
            Job ids in the order of service. Fewer than ``n`` when nothing more may be served now; ``wait`` then
            blocks, or returns at once if a very long row of dead ids was cut short.
        """
        n = min(n, MAX_POP)
        self._ingest()
        taken: list[str] = []
        for _ in range(MAX_CALLS):
            ids, stopped, _ = self._run("pop", n - len(taken), MAX_INGEST, MAX_MISSES)
            taken += map(as_text, ids)
            if not stopped or len(taken) >= n:
                break
        return taken

    def wait(self, timeout_s: float) -> bool:
        """Block until something may be poppable, without taking it.

        Every event that makes a job servable passes through the inbox: new jobs and retries are pushed there by rq,
        and the release of a slot hands a job that waited for it back there.

        Args:
            timeout_s: Longest wait, above 0.

        Returns:
            Whether something may be poppable.
        """
        deadline_s = time.monotonic() + timeout_s
        while not self.connection.exists(self._part("ring")):
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            # Somebody else may sort the inbox between the look at the ring and the sleep, so sleeps are short.
            slept = cast("Any", self.connection.blmove)(self.key, self.key, min(left_s, WAIT_SLICE_S), "LEFT", "LEFT")
            if slept is not None:
                return True
        return True

    def unlist(self, pipeline: Pipeline, job_ids: Sequence[str]) -> None:
        """Take popped ids off rq's intermediate list, in the MULTI that starts their jobs."""
        self._script("unlist").queue(pipeline, *self._call(*job_ids))

    def settle(
        self, pipeline: Pipeline | redis.Redis, job_id: str, estimated_gpu_s: float, actual_gpu_s: float
    ) -> None:
        """Replace the estimated cost of a run by the measured one; may be part of a MULTI, before ``release``.

        Args:
            pipeline: Where to run it.
            job_id: Whose cost.
            estimated_gpu_s: What the job's hash says; what was really charged is used where it is still known.
            actual_gpu_s: GPU-seconds it took, 0 to give all back.
        """
        if not (math.isfinite(actual_gpu_s) and actual_gpu_s >= 0):
            raise ValueError("actual_gpu_s must be finite and at least 0.")
        self._script("settle").queue(pipeline, *self._call(job_id, estimated_gpu_s, actual_gpu_s))

    def release(self, pipeline: Pipeline | redis.Redis, job_id: str) -> None:
        """Free a job's slot, whatever became of it; safe to repeat and to put into the MULTI that ends the job."""
        self._script("release").queue(pipeline, *self._call(job_id))

    def end_runs(self, pipeline: Pipeline, runs: Sequence[tuple[str, float, float | None]]) -> None:
        """``settle`` and ``release`` many jobs in one call of a MULTI.

        Args:
            pipeline: Where to run it.
            runs: Job id, estimated cost, and what it took in GPU-seconds, or None to leave the estimate as it is.
        """
        args: list[scripts.Argument] = []
        for job_id, estimated_gpu_s, actual_gpu_s in runs:
            args += (job_id, estimated_gpu_s, -1 if actual_gpu_s is None else max(actual_gpu_s, 0.0))
        self._script("end_runs").queue(pipeline, *self._call(*args))

    def set_weight(self, tenant: str, weight: float) -> None:
        """Give a tenant a share in proportion to its weight; 1 is everybody's.

        Args:
            tenant: Whose weight.
            weight: From 0.001 to 1000.
        """
        if not 0.001 <= weight <= 1000:
            raise ValueError(f"weight must be between 0.001 and 1000, not {weight:g}.")
        if weight == 1:
            self.connection.hdel(self._part("weights"), tenant)
        else:
            self.connection.hset(self._part("weights"), tenant, str(weight))

    def set_caps(self, tenant_in_flight: int, user_in_flight: int) -> None:
        """Limit how many jobs run at once, for every worker of this queue.

        Args:
            tenant_in_flight: Of one tenant, at least 1.
            user_in_flight: Of one user within a tenant, at least 1.
        """
        if tenant_in_flight < 1 or user_in_flight < 1:
            raise ValueError("Both caps must be at least 1.")
        self._run("set_caps", tenant_in_flight, user_in_flight)

    # -- repair --------------------------------------------------------------------------------------------------

    @property
    def intermediate_queue(self) -> IntermediateQueue:
        """The list of popped ids, which rq's maintenance cleans."""
        return FairIntermediateQueue(self.key, connection=self.connection)

    def acquire_maintenance_lock(self) -> bool:
        """Whether this process may clean the queue now."""
        return bool(self.connection.set(self.registry_cleaning_key, 1, nx=True, ex=MAINTENANCE_LOCK_S))

    def reconcile(self, age_s: float = RESCUE_AGE_S) -> tuple[int, int]:
        """Repair what killed processes left behind; rq's maintenance calls it, and it may be called at any time.

        Args:
            age_s: How long a popped id may stay unstarted before it is put back at the head of its lane.

        Returns:
            How many ids were put back, and how many slots of dead workers' jobs were freed.
        """
        wip = StartedJobRegistry.key_template.format(self.name)
        names, args = self._call(age_s)
        rescued, freed = self._script("reconcile").run(self.connection, [*names, wip], args)
        return rescued, freed

    # -- what rq and its tools ask -------------------------------------------------------------------------------

    @property
    def count(self) -> int:
        """Queued jobs, sorted or not; cancelled ones count until they are removed or passed over."""
        with self.connection.pipeline() as pipeline:
            pipeline.llen(self.key)
            pipeline.hget(self._part("state"), "queued")
            in_inbox, in_lanes = pipeline.execute()
        return int(in_inbox) + int(in_lanes or 0)

    def get_job_ids(self, offset: int = 0, length: int = -1) -> list[str]:
        """Queued ids: lane by lane in the order in which the tenants are served next, then the unsorted inbox."""
        with self.connection.pipeline() as pipeline:
            pipeline.zrange(self._part("ring"), 0, -1)
            pipeline.zrange(self._part("capped"), 0, -1)
            pipeline.smembers(self._part("parked"))
            ring, capped, parked = pipeline.execute()
        with self.connection.pipeline() as pipeline:
            for tenant in [*ring, *capped]:
                pipeline.lrange(self._part("lane:" + as_text(tenant)), 0, -1)
            for member in sorted(parked):
                pipeline.lrange(self._part("parking:" + as_text(member)), 0, -1)
            pipeline.lrange(self.key, 0, -1)
            ids = [as_text(job_id) for lane in pipeline.execute() for job_id in lane]
        return ids[offset:] if length < 0 else ids[offset : offset + length]

    def get_job_position(self, job_or_id: Job | str) -> int | None:
        """Place within the tenant's own lane, from 0; ``workers.position`` knows the place in the whole queue."""
        job_id = job_or_id.id if isinstance(job_or_id, Job) else job_or_id
        tenant = tenant_of(job_id)
        with self.connection.pipeline() as pipeline:
            pipeline.lpos(self._part("lane:" + tenant), job_id)
            pipeline.llen(self._part("lane:" + tenant))
            pipeline.lrange(self.key, 0, -1)
            place, lane_length, inbox = pipeline.execute()
        if place is not None:
            return int(place)
        own = [as_text(other) for other in inbox if tenant_of(as_text(other)) == tenant]
        return lane_length + own.index(job_id) if job_id in own else None

    def remove(self, job_or_id: Job | str, pipeline: Pipeline | None = None) -> Any:
        """Take a job off the queue, wherever it waits."""
        job_id = job_or_id.id if isinstance(job_or_id, Job) else job_or_id
        client = self.connection if pipeline is None else pipeline
        return self._script("remove").queue(client, *self._call(job_id))

    def compact(self) -> None:
        """Take ids whose jobs no longer exist off the queue."""
        for job_id in self.get_job_ids():
            if not self.job_class.exists(job_id, self.connection):
                self.remove(job_id)

    def empty(self) -> int:
        """Delete every queued job, in calls of bounded length.

        Returns:
            How many were deleted.
        """
        return self._drain(delete_jobs=True)

    def delete(self, delete_jobs: bool = True) -> None:
        """Delete the queue with its weights and caps; jobs that are running keep their slots until they end.

        Args:
            delete_jobs: Whether the queued jobs go too.
        """
        self._drain(delete_jobs=delete_jobs)
        with self.connection.pipeline() as pipeline:
            pipeline.srem(self.redis_queues_keys, self.key)
            pipeline.delete(self.key, *(self._part(name) for name in ("ring", "capped", "finish", "weights", "state")))
            pipeline.execute()

    # -- inside --------------------------------------------------------------------------------------------------

    def _enqueue_async_job(
        self, job: Job, pipeline: Pipeline | None = None, at_front: bool = False, unique: bool = False
    ) -> Job:
        if at_front:  # saved with the job, so that sorting can tell it from the rest of the inbox
            job.enqueue_at_front = True
        return super()._enqueue_async_job(job, pipeline=pipeline, at_front=at_front, unique=unique)

    def _ingest(self) -> None:
        """Sort the inbox into lanes, in as many bounded calls as it takes up to a limit."""
        if self.connection.llen(self.key) <= MAX_INGEST:
            return  # the pop itself sorts that many
        _, _, left = self._run("pop", 0, MAX_INGEST, 0)
        calls = min(-(-left // MAX_INGEST), MAX_CALLS) - 1  # the pop itself sorts the rest
        names, args = self._call(0, MAX_INGEST, 0)
        for start in range(0, calls, CALLS_IN_A_ROW):
            with self.connection.pipeline(transaction=False) as pipeline:
                for _ in range(min(CALLS_IN_A_ROW, calls - start)):
                    pipeline.evalsha(self._script("pop").sha, len(names), *names, *args)
                pipeline.execute()

    def _drain(self, *, delete_jobs: bool) -> int:
        results: str = Result.get_key("")  # type: ignore[no-untyped-call]  # rq leaves this function untyped
        total, more = 0, 1
        while more:
            taken, more = self._run("drain", DRAIN_BATCH, int(delete_jobs), results)
            total += taken
        return total

    def _part(self, name: str) -> str:
        return keys.fair(self.name, name)

    @staticmethod
    def _script(name: str) -> scripts.LuaScript:
        return scripts.load("lanes", name)

    def _call(self, *args: scripts.Argument) -> tuple[list[str], list[scripts.Argument]]:
        names = [self.key, self.intermediate_queue_key]
        return names, [self._part(""), self.job_class.redis_job_namespace_prefix, *args]

    def _run(self, name: str, *args: scripts.Argument) -> Any:
        return self._script(name).run(self.connection, *self._call(*args))
