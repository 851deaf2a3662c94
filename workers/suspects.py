"""Who is to blame for the death of an engine, and who may run with whom until that is known.

Jobs that were in flight at a death are suspects, and it is remembered how far each had come: how many pieces of its
answer there were. What kills does so at the same place again. So suspects are put on trial together, each from its
beginning to its own place: they begin one after the other, those that had come least far first, and leave again once
they are past it. So only one at a time is at its place, while all others repeat what they have survived before; if the
engine dies then, that one did it. Nobody else joins meanwhile, and afterwards everybody who passed is above suspicion.

A death that this does not explain (the place moves, or it was an accident) makes suspects again. After
``ALONE_CRASHES`` of them a job runs alone, so that the next death leaves no doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

#: A suspect begins when the one before it has come this many pieces far, so that their places are apart.
STAGGER_PIECES = 4
#: After this many unexplained deaths a job runs alone.
ALONE_CRASHES = 3


class Suspect(Protocol):
    """What is asked of an execution; see ``execution_slots.Slot``."""

    crashes: int
    crashed_at: int | None
    pieces: int

    @property
    def submitted(self) -> bool:
        """Whether the engine has it."""
        ...


S = TypeVar("S", bound=Suspect)


def culprit(in_flight: Sequence[S]) -> S | None:
    """Whose doing a death is, of those that the engine had been given; None if that cannot be told yet."""
    if len(in_flight) == 1:
        return in_flight[0]
    if any(slot.crashed_at is None for slot in in_flight):
        return None  # it may have been one of these
    at_their_place = [slot for slot in in_flight if slot.pieces == slot.crashed_at]
    return at_their_place[0] if len(at_their_place) == 1 else None


def has_passed(slot: Suspect) -> bool:
    """Whether a suspect has been at its place and survived it."""
    return slot.crashed_at is not None and slot.pieces > slot.crashed_at and slot.crashes < ALONE_CRASHES


def on_trial(slots: Sequence[Suspect]) -> bool:
    """Whether any suspect is still to pass its place, so that nobody new is to come."""
    return any(slot.crashed_at is not None and not has_passed(slot) for slot in slots)


def runnable(slots: Sequence[S]) -> list[S]:
    """Which of the waiting executions to give to the engine now."""
    waiting = [slot for slot in slots if not slot.submitted]
    if not on_trial(slots):
        return waiting
    running = [slot for slot in slots if slot.submitted]
    suspects = sorted((slot for slot in waiting if slot.crashed_at is not None), key=_turn)
    if not suspects or any(slot.crashed_at is None for slot in running):
        return []
    alone = any(slot.crashes >= ALONE_CRASHES for slot in (suspects[0], *running))
    if running and (alone or any(slot.pieces < STAGGER_PIECES for slot in running)):
        return []
    return suspects[:1]


def _turn(slot: Suspect) -> tuple[bool, int]:
    """The order of a trial: whoever begins later reaches its place later than those before have passed theirs."""
    return slot.crashes >= ALONE_CRASHES, slot.crashed_at or 0
