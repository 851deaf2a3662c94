"""The executions a worker holds, and which of them may run together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rq.executions import Execution

from workers import suspects
from workers.outbox import OutboxJob


@dataclass(slots=True, eq=False)
class Slot:
    """One started job of this worker: it holds a lease from its start in Redis until it is settled.

    Attributes:
        crashes: Unexplained engine deaths that its job was in flight at.
        crashed_at: How many pieces of its answer had come at the last of them; None while it is above suspicion.
        cancelled: Whether its user wanted it stopped before it began.
        deadline_at: Monotonic time after which the attempt has failed; None while it waits for its turn.
        pieces: How many pieces of its answer this run has brought.
    """

    job: OutboxJob
    execution: Execution
    crashes: int = 0
    crashed_at: int | None = None
    cancelled: bool = False
    deadline_at: float | None = None
    pieces: int = 0

    @property
    def id(self) -> str:
        """The execution's id: one job's attempts never mix."""
        return str(self.execution.id)

    @property
    def submitted(self) -> bool:
        """Whether the engine has it."""
        return self.deadline_at is not None


@dataclass(slots=True)
class ExecutionSlots:
    """All executions in flight.

    Args:
        capacity: Most of them at once.
    """

    capacity: int
    _slots: dict[str, Slot] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._slots)

    def __iter__(self) -> Iterator[Slot]:
        return iter(list(self._slots.values()))

    @property
    def free(self) -> int:
        """How many more jobs to take; none while suspects of an engine's death are on trial."""
        if suspects.on_trial(list(self)):
            return 0
        return max(0, self.capacity - len(self._slots))

    def add(self, slots: Sequence[Slot]) -> None:
        """Hold executions that have just been started."""
        self._slots.update((slot.id, slot) for slot in slots)

    def get(self, execution_id: str) -> Slot | None:
        """The execution with this id."""
        return self._slots.get(execution_id)

    def take(self, execution_id: str) -> Slot | None:
        """Let go of an execution, if it is held."""
        return self._slots.pop(execution_id, None)

    def of_job(self, job_id: str) -> Slot | None:
        """The execution of this job."""
        return next((slot for slot in self._slots.values() if slot.job.id == job_id), None)

    def runnable(self) -> list[Slot]:
        """Which waiting executions to give to the engine now."""
        return suspects.runnable(list(self))

    def acquit(self) -> list[Slot]:
        """Clear the suspects that have survived their place; returns those that are to leave the engine again.

        They leave while others are on trial, because they go where nobody knows whether they survive.
        """
        passed = [slot for slot in self._slots.values() if suspects.has_passed(slot)]
        for slot in passed:
            slot.crashed_at = None
        return passed if suspects.on_trial(list(self)) else []

    def overdue(self, now_s: float) -> list[Slot]:
        """Executions whose attempt has taken too long, by the monotonic clock."""
        return [slot for slot in self._slots.values() if slot.deadline_at is not None and slot.deadline_at <= now_s]

    def next_deadline_at(self) -> float:
        """When the next attempt will have taken too long, by the monotonic clock."""
        return min(
            (slot.deadline_at for slot in self._slots.values() if slot.deadline_at is not None), default=math.inf
        )
