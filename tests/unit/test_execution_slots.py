"""Which executions may run together: after repeated engine deaths, suspects are kept apart and narrowed down."""

from dataclasses import dataclass

from workers.contract import Failure
from workers.execution_slots import ExecutionSlots, Slot
from workers.settlement import Broken, GivenBack, died_with


@dataclass
class _Named:
    id: str


def slot(name: str, crashes: int = 0, running: bool = False) -> Slot:
    held = Slot(_Named(f"job-{name}"), _Named(name), crashes)  # type: ignore[arg-type]  # only their ids matter here
    held.deadline_at = 100.0 if running else None
    return held


def slots(*held: Slot, capacity: int = 16) -> ExecutionSlots:
    made = ExecutionSlots(capacity)
    made.add(held)
    return made


def names(chosen: list[Slot]) -> list[str]:
    return [each.id for each in chosen]


def test_the_unsuspected_run_together() -> None:
    held = slots(slot("a", running=True), slot("b"), slot("c", crashes=1))
    assert names(held.runnable()) == ["b", "c"]
    assert held.free == 13


def test_suspects_wait_until_the_others_are_done_and_nobody_joins_them() -> None:
    held = slots(slot("a", running=True), slot("s", crashes=2), slot("b"))
    assert held.runnable() == []
    assert held.free == 0
    held.take("a")
    assert names(held.runnable()) == ["s"]


def test_suspects_run_in_groups_of_the_square_root() -> None:
    held = slots(*(slot(f"s{i}", crashes=2) for i in range(10)), slot("b"))
    assert names(held.runnable()) == ["s0", "s1", "s2", "s3"]


def test_nobody_joins_a_running_suspect() -> None:
    assert slots(slot("s", crashes=2, running=True), slot("b")).runnable() == []


def test_the_narrowed_run_alone() -> None:
    held = slots(slot("s", crashes=3), slot("t", crashes=3))
    assert names(held.runnable()) == ["s"]


def test_overdue_and_next_deadline() -> None:
    held = slots(slot("a", running=True), slot("b"))
    assert held.next_deadline_at() == 100.0
    assert held.overdue(99.0) == []
    assert names(held.overdue(100.0)) == ["a"]


def test_only_a_job_that_was_alone_is_convicted() -> None:
    assert died_with(slot("s", crashes=5), in_flight=2, quarantine_crashes=2) == GivenBack(crash=True)
    assert died_with(slot("s", crashes=0), in_flight=1, quarantine_crashes=2) == GivenBack(crash=True)
    convicted = died_with(slot("s", crashes=1), in_flight=1, quarantine_crashes=2)
    assert isinstance(convicted, Broken)
    assert isinstance(convicted.failure, Failure)
    assert convicted.failure.code == "quarantined"
    assert not convicted.retryable


def test_found_by_job() -> None:
    held = slots(slot("a"))
    assert held.of_job("job-a") is held.get("a")
    assert held.of_job("job-b") is None
