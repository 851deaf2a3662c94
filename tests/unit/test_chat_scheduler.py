"""Rows, fairness and budgets, with the model left out."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from generation.chat.detokenizer import Detokenizer
from generation.chat.scheduler import Scheduler
from generation.chat.sequence import Sequence, new_sequence
from generation.types import Sampling
from tests.chat_models import letter_tokenizer

TOKENIZER = letter_tokenizer()


class Rows:
    """A store of one mark a row, to see that moves keep up with the scheduler's idea of who is where."""

    def __init__(self, count: int) -> None:
        self.marks: list[Sequence | None] = [None] * count

    def move(self, source: int, target: int, tokens: int) -> None:
        self.marks[target] = self.marks[source]

    def swap(self, first: int, second: int, tokens: int) -> None:
        self.marks[first], self.marks[second] = self.marks[second], self.marks[first]


def sequence(prompt_tokens: int, answer_tokens: int = 4) -> Sequence:
    return new_sequence("r", list(range(prompt_tokens)), Sampling(), answer_tokens, Detokenizer(TOKENIZER), None, 0)


def step(scheduler: Scheduler, rows: Rows) -> None:
    for admitted in scheduler.admit():
        rows.marks[admitted.row] = admitted
    if not scheduler.active:
        return
    plan = scheduler.plan()
    sampled = plan.sampled
    scheduler.commit(plan)
    for each in sampled:
        each.append(1, 0.0)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["add", "step", "remove", "shed"]), st.integers(0, 60)), max_size=60))
def test_rows_stay_packed_and_follow_their_sequences(actions: list[tuple[str, int]]) -> None:
    rows = Rows(8)
    scheduler = Scheduler(rows, max_rows=6, budget_tokens=400, chunk_tokens=24)
    for action, number in actions:
        everyone = [*scheduler.active, *scheduler.waiting]
        if action == "add":
            scheduler.waiting.append(sequence(1 + number))
        elif action == "remove" and everyone:
            scheduler.remove(everyone[number % len(everyone)])
        elif action == "shed":
            scheduler.shed()
        else:
            step(scheduler, rows)
        active = scheduler.active
        assert [each.row for each in active] == list(range(len(active)))
        assert [rows.marks[each.row] for each in active] == active
        assert all(each.filled == each.known_tokens - 1 for each in scheduler.running)
        assert len(active) * max((each.needed_tokens for each in active), default=0) <= 400 or len(active) == 1
        assert not set(active) & set(scheduler.waiting)


def test_first_come_first_served_even_if_a_smaller_one_would_fit() -> None:
    scheduler = Scheduler(Rows(8), max_rows=6, budget_tokens=100, chunk_tokens=24)
    large, small = sequence(60), sequence(10)
    scheduler.waiting.extend([sequence(10), large, small])
    scheduler.admit()
    assert list(scheduler.waiting) == [large, small]


def test_chunk_is_shared_between_the_oldest_and_the_shortest() -> None:
    scheduler = Scheduler(Rows(8), max_rows=6, budget_tokens=10_000, chunk_tokens=32)
    oldest, middle, shortest = sequence(100), sequence(50), sequence(10)
    scheduler.waiting.extend([oldest, middle, shortest])
    scheduler.admit()
    taken = {chunk.sequence: chunk.end - chunk.start for chunk in scheduler.plan().chunks}
    assert taken == {oldest: 16, shortest: 10, middle: 6}


def test_limits_come_back_after_many_good_steps() -> None:
    rows = Rows(8)
    scheduler = Scheduler(rows, max_rows=4, budget_tokens=100_000, chunk_tokens=64)
    for _ in range(4):
        scheduler.waiting.append(sequence(5, answer_tokens=10_000))
    step(scheduler, rows)
    assert len(scheduler.active) == 4
    assert len(scheduler.shed()) == 2
    step(scheduler, rows)
    assert len(scheduler.active) == 2
    for _ in range(300):
        step(scheduler, rows)
    assert len(scheduler.active) == 4
