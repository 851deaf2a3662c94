"""Who is in the next step: one token for every running sequence, and chunks of the prompts of joining ones."""

from __future__ import annotations

from collections import deque
from typing import Protocol

from generation.chat.sequence import Chunk, Sequence, StepPlan

#: Successful steps after which limits that were halved for lack of memory are doubled again.
_RECOVERY_STEPS = 64
_SMALLEST_CHUNK_TOKENS = 32


class Rows(Protocol):
    """Where the sequences' state lies; the scheduler decides who has which row."""

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy a row over another."""
        ...

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two rows."""
        ...


class Scheduler:
    """Waiting, joining (their prompt is being computed) and running sequences.

    Running sequences keep rows ``0 .. running - 1``, joining ones the rows that follow, so that attention over all
    running sequences reads one block of memory. Admission is first come, first served, and reserves the whole answer:
    a sequence that was admitted never runs out of memory for its keys and values.

    Args:
        rows: Moves the state when sequences change rows.
        max_rows: Most sequences joining and running.
        budget_tokens: Most tokens of keys and values: rows times the longest row.
        chunk_tokens: Most prompt tokens in one step.
    """

    def __init__(self, rows: Rows, max_rows: int, budget_tokens: int, chunk_tokens: int) -> None:
        self.waiting: deque[Sequence] = deque()
        self.joining: list[Sequence] = []  # in the order of their rows
        self.running: list[Sequence] = []  # in the order of their rows
        self._rows = rows
        self._max_rows = max_rows
        self._budget_tokens = budget_tokens
        self._chunk_tokens = chunk_tokens
        self._limit_rows = max_rows
        self._limit_chunk_tokens = chunk_tokens
        self._good_steps = 0

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.waiting or self.joining or self.running)

    @property
    def active(self) -> list[Sequence]:
        """Sequences that hold a row, in the order of their rows."""
        return self.running + self.joining

    def admit(self) -> list[Sequence]:
        """Give rows to waiting sequences while there is room for their whole answers.

        Returns:
            Those that got one.
        """
        admitted = []
        longest = max((sequence.needed_tokens for sequence in self.active), default=0)
        while self.waiting:
            count = len(self.running) + len(self.joining) + 1
            longest = max(longest, self.waiting[0].needed_tokens)
            if count > self._limit_rows or (count > 1 and count * longest > self._budget_tokens):
                break
            sequence = self.waiting.popleft()
            sequence.row = count - 1
            sequence.filled = 0
            self.joining.append(sequence)
            admitted.append(sequence)
        return admitted

    def plan(self) -> StepPlan:
        """The next step.

        The oldest prompt gets at least half of the chunk so that it arrives; what is left goes to those with the
        fewest tokens missing, so that a short question does not wait behind a long document.
        """
        budget = self._limit_chunk_tokens
        takes: dict[Sequence, int] = {}
        if self.joining:
            oldest = min(self.joining, key=lambda sequence: sequence.submitted_s)
            takes[oldest] = min(_missing(oldest), budget if len(self.joining) == 1 else max(1, budget // 2))
            budget -= takes[oldest]
            for sequence in sorted(self.joining, key=_missing):
                more = min(budget, _missing(sequence) - takes.get(sequence, 0))
                if more > 0:
                    takes[sequence] = takes.get(sequence, 0) + more
                    budget -= more
        chunks = tuple(
            Chunk(sequence, sequence.filled, sequence.filled + takes[sequence])
            for sequence in self.joining
            if sequence in takes
        )
        return StepPlan(tuple(self.running), chunks)

    def commit(self, plan: StepPlan) -> None:
        """Note what a step has computed; joining sequences whose prompt is complete become running ones."""
        for sequence in plan.decode:
            sequence.filled += 1
        for chunk in plan.chunks:
            completes = chunk.completes
            chunk.sequence.filled = chunk.end
            if completes:
                self._promote(chunk.sequence)
        self._recover()

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out wherever it is; its row is free at once."""
        if sequence in self.waiting:
            self.waiting.remove(sequence)
            return
        hole = sequence.row
        sequence.row = -1
        if sequence in self.running:
            last = self.running.pop()
            if last is not sequence:
                self._place(last, hole)
                self.running[hole] = last
            hole = len(self.running)
        else:
            self.joining.remove(sequence)
        end = len(self.running) + len(self.joining)
        mover = next((joining for joining in self.joining if joining.row == end), None)
        if mover is not None and hole != end:
            self._place(mover, hole)
        self.joining.sort(key=lambda joining: joining.row)

    def shed(self) -> list[Sequence]:
        """Answer to a lack of memory: send the youngest half back to wait and halve the limits.

        Returns:
            Those sent back; empty when one sequence with the smallest chunk is all there is.
        """
        self._good_steps = 0
        active = sorted(self.active, key=lambda sequence: sequence.submitted_s)
        keep = max(1, len(active) // 2)
        shed = active[keep:]
        for sequence in reversed(shed):
            self.remove(sequence)
            sequence.filled = 0
            self.waiting.appendleft(sequence)
        self._limit_rows = keep
        self._limit_chunk_tokens = max(_SMALLEST_CHUNK_TOKENS, self._limit_chunk_tokens // 2)
        return shed

    @property
    def least(self) -> bool:
        """Whether the step is as small as it gets."""
        return len(self.active) <= 1 and self._limit_chunk_tokens <= _SMALLEST_CHUNK_TOKENS

    def _recover(self) -> None:
        """After a long while without a lack of memory, allow twice as much again."""
        self._good_steps += 1
        if self._good_steps < _RECOVERY_STEPS:
            return
        self._good_steps = 0
        self._limit_rows = min(self._max_rows, 2 * self._limit_rows)
        self._limit_chunk_tokens = min(self._chunk_tokens, 2 * self._limit_chunk_tokens)

    def _promote(self, sequence: Sequence) -> None:
        """Move a joining sequence to the first row behind the running ones."""
        first = len(self.running)
        other = next((joining for joining in self.joining if joining.row == first), None)
        if other is not None and other is not sequence:
            self._rows.swap(first, sequence.row, max(other.filled, sequence.filled))
            other.row, sequence.row = sequence.row, first
        self.joining.remove(sequence)
        self.joining.sort(key=lambda joining: joining.row)
        self.running.append(sequence)

    def _place(self, sequence: Sequence, row: int) -> None:
        self._rows.move(sequence.row, row, sequence.filled)
        sequence.row = row


def _missing(sequence: Sequence) -> int:
    """Tokens to compute before the sequence can go on."""
    return sequence.known_tokens - sequence.filled
