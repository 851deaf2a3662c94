"""An answer as a terminal sees it grow."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass, field

from bots.service import Update
from workers.client import Ended, Queued, Restarted, TextDelta
from workers.contract import Event, UsageReport
from workers.errors import WorkersError

_EX_DATAERR = 65
# Everything that a terminal obeys instead of showing, but for newline and tab.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Model text without what a terminal would obey: escape sequences move the cursor, set titles, or worse."""
    return _CONTROL.sub("", text)


class AnswerError(WorkersError):
    """A job ended without an answer.

    Args:
        event: Its terminal event.
    """

    def __init__(self, event: Event) -> None:
        failure = event.failure
        super().__init__(failure.message if failure else f"The answer was {event.type}.")
        self.code = failure.code if failure else event.type
        unacceptable = event.type == "refused" or self.code in ("invalid_request", "prompt_too_long")
        self.exit_code = _EX_DATAERR if unacceptable else WorkersError.exit_code


@dataclass(slots=True)
class Answer:
    """What is known of one answer.

    Attributes:
        job_id: Whose.
        asked_s: Monotonic time of asking.
        queued: Latest place in the queue, None once it runs.
        text: All text so far.
        first_text_s: Seconds from asking to the first text.
        event: The terminal event, once it has come.
        restarts: How often it began anew.
    """

    job_id: str
    asked_s: float = field(default_factory=time.monotonic)
    queued: Queued | None = None
    text: str = ""
    first_text_s: float | None = None
    event: Event | None = None
    restarts: int = 0

    def take(self, update: Update) -> None:
        """Apply what ``follow`` told."""
        match update:
            case Queued():
                self.queued = update
            case TextDelta(text):
                self.queued = None
                self.text += text
                if self.first_text_s is None:
                    self.first_text_s = time.monotonic() - self.asked_s
            case Restarted():
                self.text = ""
                self.restarts += 1
            case Ended(event):
                self.queued = None
                self.event = event

    @property
    def usage(self) -> UsageReport:
        """What it took; zeros until the end."""
        return (self.event and self.event.usage) or UsageReport()

    @property
    def tokens_per_s(self) -> float:
        """Speed of writing after the first token, 0 if unknown."""
        usage = self.usage
        writing_s = usage.duration_s - usage.ttft_s
        return (usage.completion_tokens - 1) / writing_s if usage.completion_tokens > 1 and writing_s > 0 else 0.0

    def status(self) -> str:
        """One line: where it stands, or how it ended."""
        if self.event is None:
            return self._waiting() if not self.text else "writing"
        if self.event.type == "cancelled":
            return "stopped"
        if self.event.type != "finished":
            return self.event.type
        parts = [f"{self.usage.completion_tokens} tokens"]
        if self.tokens_per_s:
            parts.append(f"{self.tokens_per_s:.1f} tokens/s")
        if self.first_text_s is not None:
            parts.append(f"first after {self.first_text_s:.1f} s")
        if self.event.finish_reason in ("length", "deadline"):
            parts.append("cut at the token limit" if self.event.finish_reason == "length" else "cut at the time limit")
        if self.usage.dropped_messages:
            parts.append(f"{self.usage.dropped_messages} oldest messages left out")
        return ", ".join(parts)

    def _waiting(self) -> str:
        if self.queued is None:
            return "thinking"
        eta = f", about {self.queued.eta_s:.0f} s" if self.queued.eta_s is not None else ""
        return f"{self.queued.position} before this one{eta}" if self.queued.position else f"next in the queue{eta}"
