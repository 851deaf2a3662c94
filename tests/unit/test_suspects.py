"""Who is to blame for an engine's death: found at the second one, while everybody else finishes."""

from __future__ import annotations

import random
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from workers.execution_slots import Slot
from workers.settlement import Broken, GivenBack, died_with
from workers.suspects import ALONE_CRASHES, STAGGER_PIECES, culprit, has_passed, on_trial, runnable


@dataclass
class Run:
    """An execution as the rules see it, and what its job will do."""

    name: str
    tokens: int = 20
    kills_at: int | None = None
    crashes: int = 0
    crashed_at: int | None = None
    pieces: int = 0
    submitted: bool = False
    kills: int = 0


def running(name: str, pieces: int, crashed_at: int | None = None, crashes: int = 1) -> Run:
    return Run(name, crashes=crashes, crashed_at=crashed_at, pieces=pieces, submitted=True)


def names(runs: list[Run]) -> list[str]:
    return [run.name for run in runs]


class Machine:
    """One worker and its engine, a step at a time; jobs that were given back are taken again."""

    def __init__(self, capacity: int, jobs: list[Run], dice: random.Random) -> None:
        self.capacity, self.queue, self.dice = capacity, jobs, dice
        self.slots: list[Run] = []
        self.finished: list[Run] = []
        self.quarantined: list[Run] = []
        self.deaths = 0

    def turn(self) -> None:
        if not on_trial(self.slots):
            while self.queue and len(self.slots) < self.capacity:
                self.slots.append(self.queue.pop(0))
        for run in runnable(self.slots):
            run.submitted, run.pieces = True, 0
        in_flight = [run for run in self.slots if run.submitted]
        killers = [run for run in in_flight if run.pieces == run.kills_at]
        if killers:
            killers[0].kills += 1
            self.die(in_flight)
            return
        for run in in_flight:
            run.pieces += 1
            if run.pieces >= run.tokens:
                self.slots.remove(run)
                self.finished.append(run)
        self.acquit()

    def acquit(self) -> None:
        """As ``ExecutionSlots.acquit``."""
        passed = [run for run in self.slots if has_passed(run)]
        for run in passed:
            run.crashed_at = None
        for run in passed if on_trial(self.slots) else []:
            run.submitted, run.pieces = False, 0
            self.slots.remove(run)
            self.queue.insert(0, run)

    def die(self, in_flight: list[Run]) -> None:
        self.deaths += 1
        to_blame = culprit(in_flight)
        back = []
        for run in self.slots:
            if run is to_blame and run.crashes >= 1:
                self.quarantined.append(run)
                continue
            if run.submitted and to_blame in (None, run):
                run.crashes, run.crashed_at = run.crashes + 1, run.pieces
            run.submitted, run.pieces = False, 0
            back.append(run)
        self.dice.shuffle(back)
        self.slots, self.queue = [], back + self.queue

    def work(self) -> None:
        turns = 0
        while self.slots or self.queue:
            self.turn()
            turns += 1
            assert turns < 100_000


FEW = settings(max_examples=40, deadline=None)


@FEW
@given(st.data(), st.integers(1, 24), st.integers(0, 30), st.randoms(use_true_random=False))
def test_a_killer_is_found_at_its_second_death_and_all_others_finish(
    data: st.DataObject, capacity: int, others: int, dice: random.Random
) -> None:
    jobs = [Run(f"g{number}", tokens=dice.randint(1, 60)) for number in range(others)]
    place = data.draw(st.integers(0, 50))
    poison = Run("poison", tokens=80, kills_at=place)
    jobs.insert(dice.randint(0, others), poison)
    machine = Machine(capacity, jobs, dice)
    machine.work()
    assert machine.quarantined == [poison]
    assert poison.kills == 2
    assert len(machine.finished) == others


@FEW
@given(st.integers(2, 16), st.integers(1, 4), st.integers(0, 30), st.randoms(use_true_random=False))
def test_copies_of_a_killer_harm_nobody_else(capacity: int, copies: int, place: int, dice: random.Random) -> None:
    """Somebody sends the same prompt again and again."""
    jobs = [Run(f"g{number}", tokens=dice.randint(1, 40)) for number in range(20)]
    poisons = [Run(f"p{number}", tokens=80, kills_at=place) for number in range(copies)]
    mixed = jobs + poisons
    dice.shuffle(mixed)
    machine = Machine(capacity, mixed, dice)
    machine.work()
    assert sorted(names(machine.quarantined)) == sorted(names(poisons))
    assert len(machine.finished) == 20


@FEW
@given(st.integers(1, 16), st.integers(1, 30), st.randoms(use_true_random=False))
def test_accidents_between_trials_cost_nobody_the_answer(capacity: int, pause: int, dice: random.Random) -> None:
    machine = Machine(capacity, [Run(f"g{number}", tokens=40) for number in range(16)], dice)
    for _ in range(2 if capacity == 1 else 4):
        for _ in range(pause):
            machine.turn()
        while on_trial(machine.slots) or len(machine.slots) < min(capacity, len(machine.queue)):
            machine.turn()
        machine.die([run for run in machine.slots if run.submitted])
    machine.work()
    assert len(machine.finished) + len(machine.quarantined) == 16
    assert capacity == 1 or not machine.quarantined


def test_a_killer_whose_place_moves_is_found_when_it_is_alone() -> None:
    poison = Run("poison", tokens=1_000, kills_at=30)
    machine = Machine(8, [poison, *(Run(f"g{number}", tokens=50 + number) for number in range(20))], random.Random(0))
    while poison.kills < 4 and not machine.quarantined:
        machine.turn()
        poison.kills_at = (30, 70, 110, 150, 190)[poison.kills]
    machine.work()
    assert machine.quarantined == [poison]
    assert poison.kills == ALONE_CRASHES + 1
    assert len(machine.finished) == 20


def test_suspects_begin_one_after_the_other_least_progress_first_and_nobody_joins() -> None:
    far, near, fresh = Run("far", crashes=1, crashed_at=9), Run("near", crashes=1, crashed_at=2), Run("new")
    assert names(runnable([fresh, far, near])) == ["near"]
    assert runnable([fresh, far, running("near", STAGGER_PIECES - 1, crashed_at=12)]) == []
    assert names(runnable([fresh, far, running("near", STAGGER_PIECES, crashed_at=12)])) == ["far"]
    assert names(runnable([fresh, running("far", 10, crashed_at=9)])) == ["new"]


def test_suspects_wait_until_the_unsuspected_are_done() -> None:
    assert runnable([Run("s", crashes=1, crashed_at=3), running("a", 5), Run("b")]) == []


def test_those_of_many_deaths_run_alone() -> None:
    often, too = (Run(name, crashes=ALONE_CRASHES, crashed_at=3) for name in "st")
    assert names(runnable([often, too])) == ["s"]
    assert runnable([running("s", 500, crashed_at=3, crashes=ALONE_CRASHES), too, Run("new")]) == []
    assert runnable([running("s", 500, crashed_at=3), too]) == []


def test_blame_needs_one_suspect_at_its_place_and_nobody_above_suspicion() -> None:
    here, there = running("here", 6, crashed_at=6), running("there", 3, crashed_at=10)
    assert culprit([here, there]) is here
    assert culprit([here, there, running("also", 5, crashed_at=5)]) is None
    assert culprit([here, there, running("new", 5)]) is None
    assert culprit([there, running("later", 1, crashed_at=10)]) is None
    assert culprit([running("new", 5)]) is not None
    assert culprit([]) is None


def test_only_the_culprit_is_quarantined_and_counted() -> None:
    class _Job:
        id = "x"

    first, second = (Slot(_Job(), _Job(), crashes=1) for _ in range(2))  # type: ignore[arg-type]  # only compared
    assert died_with(first, None, 2) == GivenBack(crash=True)
    assert died_with(first, second, 2) == GivenBack(crash=False)
    assert died_with(first, first, 3) == GivenBack(crash=True)
    convicted = died_with(first, first, 2)
    assert isinstance(convicted, Broken)
    assert convicted.failure.code == "quarantined"
    assert not convicted.retryable
