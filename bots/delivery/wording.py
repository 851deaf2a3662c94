"""What people read while they wait, and when something did not come out: what happened, and what to do."""

from __future__ import annotations

import math

from workers.client import Queued
from workers.contract import Event
from workers.errors import RedisUnavailableError, RefusedError, WorkersError

BEGINNING = "One moment…"
BUSY = (
    "Too busy to take this right now: the queue cannot be reached. Nothing was counted; please try again in a minute."
)
LOST = (
    "This could not be answered: it was lost before it reached the queue, or its answer has expired. Please ask again."
)
EMPTY = "The model had nothing to say to that. Please put it differently."
STOPPED = "Stopped."
CUT_SHORT = {"length": "Cut off at the longest answer allowed.", "deadline": "Cut off: the time for one answer is up."}

_MINUTE_S = 60
_HOUR_S = 3600


def duration(seconds: float) -> str:
    """A time as people say it: ``8 s``, ``3 min``, ``2 h``; never less than a second."""
    if seconds < 1.5 * _MINUTE_S:
        return f"{max(1, math.ceil(seconds))} s"
    if seconds < 1.5 * _HOUR_S:
        return f"{math.ceil(seconds / _MINUTE_S)} min"
    return f"{math.ceil(seconds / _HOUR_S)} h"


def waiting(queued: Queued) -> str:
    """The line that stands where the answer will be."""
    eta = f", about {duration(queued.eta_s)}" if queued.eta_s is not None else ""
    if not queued.position:
        return f"Next in line{eta}."
    return f"{queued.position} before this one{eta}."


def ending(event: Event, any_text: bool) -> str | None:
    """What to say below an answer about how it ended; None if it ended well.

    Args:
        event: The terminal event.
        any_text: Whether some of an answer is there.
    """
    if event.type == "cancelled":
        return STOPPED
    if event.type == "finished":
        return CUT_SHORT.get(event.finish_reason or "", None if any_text else EMPTY)
    failure = event.failure
    if failure is None:
        return LOST
    again = f" Try again in {duration(failure.retry_after_s)}." if failure.retry_after_s is not None else ""
    return failure.message + again


def refusal(error: WorkersError) -> str:
    """What to say when a prompt was not taken."""
    if isinstance(error, RedisUnavailableError):
        return BUSY
    if isinstance(error, RefusedError) and math.isfinite(error.retry_after_s):
        return f"The {error.limit} limit is used up. Try again in {duration(error.retry_after_s)}."
    return str(error)
