"""From what a job tells to what its messages show."""

from __future__ import annotations

from bots.delivery import wording
from bots.delivery.buttons import Button
from bots.delivery.content import View
from bots.delivery.splitting import Measure, Part, split
from workers.client import Ended, Queued, Restarted, TextDelta, Update
from workers.contract import Event


class Page:
    """An answer as it stands.

    Args:
        job_id: Whose.
        limit: Longest message, in the unit of ``measure``.
        measure: How the platform counts.
    """

    def __init__(self, job_id: str, limit: int, measure: Measure) -> None:
        self._stop = Button("stop", job_id)
        self._limit = limit
        self._measure = measure
        self._text = ""
        self._parts: list[Part] = []
        self._status = wording.BEGINNING
        self.event: Event | None = None

    def take(self, update: Update) -> None:
        """Apply what ``follow`` told."""
        match update:
            case Queued():
                self._status = wording.waiting(update)
            case TextDelta(text):
                self._text += text
                self._parts = split(self._text, self._limit, self._measure, self._parts)
            case Restarted():
                self._restart()
            case Ended(event):
                self.event = event

    def views(self) -> list[View]:
        """The messages, the first of them always there."""
        if self.event is not None:
            return self._final(self.event)
        texts = [part.text for part in self._parts] or [self._status]
        last = View(texts[-1], buttons=(self._stop,))
        return [*(View(text, complete=True) for text in texts[:-1]), last]

    def notice(self, text: str) -> list[View]:
        """The final messages of a job that has no end of its own, below what it has written."""
        return self._ended(text)

    def _restart(self) -> None:
        self._text, self._parts = "", []
        self._status = wording.BEGINNING

    def _final(self, event: Event) -> list[View]:
        return self._ended(wording.ending(event, bool(self._parts)))

    def _ended(self, note: str | None) -> list[View]:
        text, parts = self._text, self._parts
        if note is not None:
            text = f"{text.rstrip()}\n\n{note}" if parts else note
            parts = split(text, self._limit, self._measure)
        return [View(part.text, complete=True) for part in parts]
