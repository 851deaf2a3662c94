from __future__ import annotations

from dataclasses import dataclass

from workers.execution_slots import ExecutionSlots, Slot


@dataclass
class _Named:
    id: str


def slot(name: str, crashes: int = 0, running: bool = False, pieces: int = 0) -> Slot:
    place = 0 if crashes else None
    held = Slot(_Named(f"job-{name}"), _Named(name), crashes, place, pieces=pieces)  # type: ignore[arg-type]  # only their ids matter here
    held.deadline_at = 100.0 if running else None
    return held


def slots(*held: Slot, capacity: int = 16) -> ExecutionSlots:
    made = ExecutionSlots(capacity)
    made.add(held)
    return made


def names(chosen: list[Slot]) -> list[str]:
    return [each.id for each in chosen]


def test_the_unsuspected_run_together() -> None:
    held = slots(slot("a", running=True), slot("b"), slot("c"))
    assert names(held.runnable()) == ["b", "c"]
    assert held.free == 13


def test_nobody_is_taken_while_a_suspect_is_on_trial() -> None:
    assert slots(slot("s", crashes=1)).free == 0
    assert slots(slot("s", crashes=1, running=True)).free == 0
    assert slots(slot("s", crashes=1, running=True, pieces=20)).free == 15


def test_who_survived_is_cleared_and_leaves_while_others_are_on_trial() -> None:
    survivor, waiting = slot("s", crashes=1, running=True, pieces=2), slot("t", crashes=1)
    held = slots(survivor, waiting)
    assert held.acquit() == [survivor]
    assert survivor.crashed_at is None
    assert waiting.crashed_at == 0


def test_the_last_to_survive_goes_on() -> None:
    survivor = slot("s", crashes=1, running=True, pieces=2)
    held = slots(survivor, slot("new"))
    assert held.acquit() == []
    assert survivor.crashed_at is None
    assert names(held.runnable()) == ["new"]


def test_overdue_and_next_deadline() -> None:
    held = slots(slot("a", running=True), slot("b"))
    assert held.next_deadline_at() == 100.0
    assert held.overdue(99.0) == []
    assert names(held.overdue(100.0)) == ["a"]


def test_found_by_job() -> None:
    held = slots(slot("a"))
    assert held.of_job("job-a") is held.get("a")
    assert held.of_job("job-b") is None
