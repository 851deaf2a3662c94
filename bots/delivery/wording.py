"""What people read while they wait, and when something did not come out: what happened, and what to do."""

from __future__ import annotations

import math

from bots.image_prompt import ImagePrompt
from generation.errors import GenerationError
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
PREVIEW_ALT = "The picture while it is being drawn"
PICTURES_GONE = "The pictures have expired; Re-roll draws them again."
CUT_SHORT = {"length": "Cut off at the longest answer allowed.", "deadline": "Cut off: the time for one answer is up."}

_ALT_CHARS = 300
_PROMPT_CHARS = 600
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


def refusal(error: WorkersError | GenerationError) -> str:
    """What to say when a prompt was not taken."""
    if isinstance(error, RedisUnavailableError):
        return BUSY
    if isinstance(error, RefusedError) and error.left_gpu_s is not None:
        return f"The {error.limit} is used up. It is filled up again in {duration(error.retry_after_s)}."
    if isinstance(error, RefusedError) and math.isfinite(error.retry_after_s):
        return f"The {error.limit} limit is used up. Try again in {duration(error.retry_after_s)}."
    return str(error)


def offer(told: str) -> str:
    """What is said above the button that takes up a smaller request.

    Args:
        told: What it is, in words.
    """
    return f"There is enough left for {told}."


def drawing(step: int, total_steps: int) -> str:
    """The line above a preview."""
    return f"Drawing: step {step} of {total_steps}."


def alt(asked: ImagePrompt, index: int, count: int) -> str:
    """What a picture shows, for people who cannot see it."""
    which = f", picture {index + 1} of {count}" if count > 1 else ""
    return shortened(f"Drawn by AI: {asked.text or 'an enlarged picture'}{which}", _ALT_CHARS)


def drawn(event: Event, asked: ImagePrompt, count: int) -> str:
    """The text of finished pictures: what was asked, and what it takes to draw them again."""
    facts = [f"seed {event.images[0].seed}"] if event.images else []
    if event.images:
        facts.append(f"{event.images[0].width_px} x {event.images[0].height_px}")
    if asked.options.style:
        facts.append(f"style {asked.options.style}")
    if event.usage is not None and event.usage.model:
        facts.append(f"model {event.usage.model}")
    if event.usage is not None:
        facts.append(f"{event.usage.duration_s:.1f} s")
    said = shortened(asked.text, _PROMPT_CHARS)
    title = f"**{said}**" if said else "Enlarged"
    lost = f"\n{PICTURES_GONE}" if event.images and not count else ""
    return f"{title}\nDrawn by AI, {', '.join(facts)}. Id `{asked.job_id}`{lost}"


def shortened(text: str, limit: int) -> str:
    """A text on one line, cut at a length."""
    text = " ".join(text.split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
