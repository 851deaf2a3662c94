from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bots.delivery.pacing import Budget, Pacer
from tests.clock import Clock


def test_headers_beat_the_bucket():
    clock = Clock()
    budget = Budget(5, 5.0, reserve=1, clock=clock)
    budget.observe(remaining=1, reset_after_s=4.0)
    assert budget.wait_s("edit") == pytest.approx(1.0)
    assert budget.wait_s("final") == 0
    budget.observe(remaining=0, reset_after_s=4.0)
    assert budget.wait_s("final") == pytest.approx(4.0)


def test_refusals_stretch_the_interval_and_success_shrinks_it():
    clock = Clock()
    pacer = Pacer(Budget(1_000, 1.0, clock=clock), min_interval_s=1.0, clock=clock)
    pacer.refused(0.5)
    pacer.refused(0.5)
    assert pacer.interval_s == 4.0
    for _ in range(40):
        pacer.sent(0.0)
    assert pacer.interval_s == 1.0
    pacer.sent(6.0)
    assert pacer.interval_s == 6.0, "slow edits stretch it as well"


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
