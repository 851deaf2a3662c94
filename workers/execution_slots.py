"""The executions a worker holds, and which of them may run together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from rq.executions import Execution

from workers.outbox import OutboxJob

#: After this many engine deaths a job meets other suspects only, in small groups.
SUSPECT_CRASHES = 2
#: After this many it runs alone, so that the next death names the culprit.
ISOLATED_CRASHES = 3


@dataclass(slots=True, eq=False)
class Slot:
    """One started job of this worker: it holds a lease from its start in Redis until it is settled.

    Attributes:
        crashes: Engine deaths it was in flight at.
        cancelled: Whether its user wanted it stopped before it began.
        deadline_at: Monotonic time after which the attempt has failed; None while it waits for its turn.
        spoke: Whether it has produced text.
    """

    job: OutboxJob
    execution: Execution
    crashes: int = 0
    cancelled: bool = False
    deadline_at: float | None = None
    spoke: bool = False

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
        """How many more jobs to take; none while suspects wait for an engine of their own."""
        if any(slot.crashes >= SUSPECT_CRASHES for slot in self._slots.values()):
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
        """Which waiting executions to give to the engine now.

        Those that were in flight at repeated engine deaths are kept from the others, and narrowed down: groups of
        the square root of the capacity where there are more, then one by one. So the innocent finish, and the killer
        is found after few deaths and few slow rounds.
        """
        waiting = [slot for slot in self._slots.values() if not slot.submitted]
        if not waiting:
            return []
        running = [slot for slot in self._slots.values() if slot.submitted]
        suspects = [slot for slot in waiting if slot.crashes >= SUSPECT_CRASHES]
        if not suspects and not any(slot.crashes >= SUSPECT_CRASHES for slot in running):
            return waiting
        if running or not suspects:
            return []
        group = [slot for slot in suspects if slot.crashes < ISOLATED_CRASHES]
        size = math.isqrt(self.capacity)
        return group[:size] if len(group) > size else suspects[:1]

    def overdue(self, now_s: float) -> list[Slot]:
        """Executions whose attempt has taken too long, by the monotonic clock."""
        return [slot for slot in self._slots.values() if slot.deadline_at is not None and slot.deadline_at <= now_s]

    def next_deadline_at(self) -> float:
        """When the next attempt will have taken too long, by the monotonic clock."""
        return min(
            (slot.deadline_at for slot in self._slots.values() if slot.deadline_at is not None), default=math.inf
        )
