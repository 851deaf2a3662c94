from __future__ import annotations

import asyncio
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots.delivery.pacing import Budget, PacedMessage, Pacer, SlowDownError


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class DrivenClock(Clock):
    """Time that passes only when the test says so."""

    async def sleep(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:  # noqa: ASYNC110 - virtual time has no event to wait for
            await asyncio.sleep(0)

    async def pass_by(self, seconds: float) -> None:
        self.now_s += seconds
        await settle()


class Platform:
    """Records what was shown when; refuses or fails as told."""

    def __init__(self, clock: Clock, takes_s: float = 0.0) -> None:
        self.clock = clock
        self.takes_s = takes_s
        self.shown: list[tuple[float, str]] = []
        self.faults: list[Exception] = []

    async def send(self, text: str) -> None:
        await self.clock.sleep(self.takes_s)
        if self.faults:
            raise self.faults.pop(0)
        self.shown.append((self.clock.now_s, text))


def paced(clock: Clock, platform: Platform, budget: Budget | None = None, **options: float) -> PacedMessage:
    budget = budget or Budget(1_000, 1.0, clock=clock)
    pacer = Pacer(budget, clock=clock, **options)
    return PacedMessage(platform.send, pacer, sleep=clock.sleep, clock=clock)


async def settle() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


async def test_the_newest_text_wins_and_edits_keep_their_distance():
    clock = DrivenClock()
    platform = Platform(clock)
    message = paced(clock, platform, min_interval_s=1.5)
    for number in range(100):
        message.update(f"text {number}")
        await clock.pass_by(0.1)
    final = asyncio.create_task(message.finish("the end"))
    while not final.done():
        await clock.pass_by(0.1)
    times = [at_s for at_s, _ in platform.shown]
    assert platform.shown[-1][1] == "the end"
    assert 5 <= len(times) <= 8, "a hundred updates in ten seconds become few edits"
    assert all(later - earlier >= 1.5 - 1e-6 for earlier, later in itertools.pairwise(times[:-1]))
    assert all(float(text.split()[1]) * 0.1 >= at_s - 1_000.2 for at_s, text in platform.shown[:-1]), "no stale text"


async def test_the_final_is_retried_until_it_is_out():
    clock = Clock()
    platform = Platform(clock)
    platform.faults = [SlowDownError(7.0), OSError("connection reset")]
    begun_s = clock.now_s
    await paced(clock, platform).finish("the end")
    assert [text for _, text in platform.shown] == ["the end"]
    assert platform.shown[0][0] - begun_s >= 7.0


async def test_a_final_that_never_goes_out_is_an_error():
    clock = Clock()
    platform = Platform(clock)
    platform.faults = [OSError("gone")] * 5
    with pytest.raises(OSError, match="gone"):
        await paced(clock, platform).finish("the end")


async def test_an_edit_on_its_way_does_not_overtake_the_final():
    clock = Clock()
    platform = Platform(clock, takes_s=3.0)
    message = paced(clock, platform)
    message.update("half")
    await asyncio.sleep(0)
    await message.finish("whole")
    assert [text for _, text in platform.shown] == ["half", "whole"]


async def test_the_same_text_is_not_sent_twice():
    clock = Clock()
    platform = Platform(clock)
    message = paced(clock, platform)
    message.update("whole")
    await settle()
    await message.finish("whole")
    assert [text for _, text in platform.shown] == ["whole"]


async def test_refusals_stretch_the_interval_and_success_shrinks_it():
    clock = Clock()
    platform = Platform(clock)
    platform.faults = [SlowDownError(0.5), SlowDownError(0.5)]
    pacer = Pacer(Budget(1_000, 1.0, clock=clock), min_interval_s=1.0, clock=clock)
    message = PacedMessage(platform.send, pacer, sleep=clock.sleep, clock=clock)
    message.update("one")
    await settle()
    assert [text for _, text in platform.shown] == ["one"], "a refused edit is tried again"
    stretched_s = pacer.interval_s
    assert stretched_s > 2.0
    for number in range(40):
        message.update(f"text {number}")
        await settle()
    assert pacer.interval_s == 1.0


async def test_slow_edits_stretch_the_interval():
    clock = Clock()
    platform = Platform(clock, takes_s=6.0)
    pacer = Pacer(Budget(1_000, 1.0, clock=clock), min_interval_s=1.0, clock=clock)
    message = PacedMessage(platform.send, pacer, sleep=clock.sleep, clock=clock)
    message.update("one")
    await settle()
    assert pacer.interval_s == 6.0


def test_edits_leave_the_reserve_to_finals():
    clock = Clock()
    budget = Budget(5, 5.0, reserve=2, clock=clock)
    for _ in range(3):
        assert budget.wait_s("edit") == 0
        budget.spend()
    assert budget.wait_s("edit") == pytest.approx(1.0)
    for _ in range(2):
        assert budget.wait_s("final") == 0
        budget.spend()
    assert budget.wait_s("final") == pytest.approx(1.0)
    clock.now_s += 1.0
    assert budget.wait_s("final") == 0
    assert budget.wait_s("edit") == pytest.approx(2.0)


@settings(deadline=None)
@given(
    st.integers(2, 20).flatmap(lambda size: st.tuples(st.just(size), st.integers(0, size - 1))),
    st.floats(0.5, 60),
    st.lists(st.tuples(st.floats(0, 5), st.sampled_from(["edit", "final"])), max_size=200),
)
def test_a_budget_is_never_overdrawn(shape, window_s, wishes):
    per_window, reserve = shape
    clock = Clock()
    budget = Budget(per_window, window_s, reserve, clock)
    sent: list[float] = []
    for pause_s, urgency in wishes:
        clock.now_s += pause_s
        if budget.wait_s(urgency) == 0:
            budget.spend()
            sent.append(clock.now_s)
    # A token bucket lets through its capacity at once and its rate from then on.
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            allowed = per_window + (sent[last] - sent[first]) * per_window / window_s
            assert last - first + 1 <= allowed + 1e-3


@pytest.mark.parametrize("arguments", [(1, 1.0, 1), (0, 1.0, 0), (5, 0.0, 1), (5, 1.0, -1)])
def test_impossible_budgets_are_refused(arguments):
    with pytest.raises(ValueError, match="reserve"):
        Budget(*arguments)
