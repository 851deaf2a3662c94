"""Keeping what a worker holds: leases renewed, stops and losses noticed, a restarted server recognised."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import redis
from redis.client import Pipeline
from rq.job import JobStatus

from workers import keys
from workers.execution_slots import Slot
from workers.settlement import Ended

#: An append-only file synchronised every second may lose this much when the server dies.
UNSYNCED_S = 3.0


@dataclass(frozen=True, slots=True)
class Renewal:
    """What a round of renewals has shown.

    Args:
        lost: Executions that are no longer ours.
        cancelled: Executions whose user wants them stopped.
        undone: Ends that were confirmed and that a restarted server has forgotten.
        durable: Ends that the server has on disk by now.
    """

    lost: list[Slot] = field(default_factory=list)
    cancelled: list[Slot] = field(default_factory=list)
    undone: list[Ended] = field(default_factory=list)
    durable: list[Ended] = field(default_factory=list)


class Leases:
    """The leases of one worker, renewed in one pipeline.

    Args:
        connection: Client that returns bytes.
        lease_s: How long a lease lasts.
    """

    def __init__(self, connection: redis.Redis, lease_s: int) -> None:
        self._redis = connection
        self._lease_s = lease_s
        self._run_id = ""
        self._settled: deque[tuple[float, Ended]] = deque()

    def remember(self, settled: Iterable[Ended]) -> None:
        """Keep what was just settled until the server has it on disk for certain."""
        now_s = time.monotonic()
        self._settled.extend((now_s, each) for each in settled)

    def renew(self, slots: Sequence[Slot], preface: Pipeline) -> Renewal:
        """Renew every lease and look at every job.

        Args:
            slots: What the worker holds.
            preface: A pipeline without transaction that already holds the worker's own heartbeat.

        Raises:
            redis.RedisError: Redis is away.
        """
        started_s = time.monotonic()
        own = len(preface)
        preface.info("server")
        for slot in slots:
            self._renew_one(preface, slot)
        facts = preface.execute()[own:]
        renewal = Renewal()
        length = (len(facts) - 1) // max(1, len(slots))
        for at, slot in enumerate(slots):
            state, cancelled, lease = facts[1 + at * length :][:3]
            if lease is None or not _is_ours(slot, state):
                renewal.lost.append(slot)
            elif cancelled:
                renewal.cancelled.append(slot)
        run_id = str(facts[0]["run_id"])
        if self._run_id and run_id != self._run_id:
            renewal.undone.extend(self._forgotten())
        self._run_id = run_id
        while self._settled and self._settled[0][0] < started_s - UNSYNCED_S:
            renewal.durable.append(self._settled.popleft()[1])
        return renewal

    def _renew_one(self, pipeline: Pipeline, slot: Slot) -> None:
        pipeline.hmget(slot.job.key, "status", "execution_id")
        pipeline.exists(keys.cancel(slot.job.id))
        pipeline.zscore(slot.job.started_job_registry.key, slot.execution.composite_key)
        slot.execution.heartbeat(slot.job.started_job_registry, self._lease_s, pipeline=pipeline)

    def _forgotten(self) -> list[Ended]:
        """Of what was settled lately, the ends that the server no longer knows: the jobs are still started, by us."""
        recent = [each for _, each in self._settled]
        if not recent:
            return []
        with self._redis.pipeline(transaction=False) as pipeline:
            for each in recent:
                pipeline.hmget(each.slot.job.key, "status", "execution_id")
            states = pipeline.execute()
        return [each for each, state in zip(recent, states, strict=True) if _is_ours(each.slot, state)]


def _is_ours(slot: Slot, state: Sequence[bytes | None]) -> bool:
    return list(state) == [JobStatus.STARTED.value.encode(), slot.id.encode()]
