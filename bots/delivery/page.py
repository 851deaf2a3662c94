"""From what a job tells to what its messages show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from bots import answers
from bots.delivery import wording
from bots.delivery.buttons import Action, Button
from bots.delivery.content import Picture, View
from bots.delivery.rollover import Cut, Life, find
from bots.delivery.splitting import Measure, Part, split
from bots.image_prompt import ImagePrompt
from bots.service import Enhanced, Update
from generation.errors import RefusedContentError
from workers.client import Ended, ImageProgress, Queued, Restarted, TextDelta
from workers.contract import Event

#: Ends like what previews are; platforms tell by the content.
PREVIEW_NAME = "preview.webp"


class Page:
    """An answer as it stands.

    Args:
        job_id: Whose.
        limit: Longest message, in the unit of ``measure``.
        measure: How the platform counts.
        asked: What was asked to be drawn; None for a conversation.
        from_knowledge: Whether it quotes documents, whose mark-up is not to be obeyed.
        below: What stands below the end, whatever that is; empty for nothing.
        cuts: Where another process has divided the answer.
    """

    def __init__(
        self,
        job_id: str,
        limit: int,
        measure: Measure,
        asked: ImagePrompt | None = None,
        from_knowledge: bool = False,
        below: str = "",
        cuts: Sequence[Cut] = (),
    ) -> None:
        self._job_id = job_id
        self._asked = asked
        self._from_knowledge = from_knowledge
        self._below = below
        self._preview: tuple[Picture, ...] = ()
        self._stop = Button("stop", job_id)
        self._limit = limit
        self._measure = measure
        self._text = ""
        self._parts: list[Part] = []
        self._cuts = list(cuts)
        self._status = wording.BEGINNING
        self.event: Event | None = None
        self.pictures: tuple[Picture, ...] = ()

    def take(self, update: Update) -> None:
        """Apply what ``follow`` told."""
        match update:
            case Queued():
                self._status = wording.waiting(update)
            case TextDelta(text):
                self._text += text
                if self._from_knowledge:
                    return  # it comes as a whole, and with its sources
                self._parts = self._split(self._text)
            case ImageProgress(step, total_steps, preview):
                self._status = wording.drawing(step, total_steps)
                if preview is not None:
                    self._preview = (Picture(PREVIEW_NAME, preview, wording.PREVIEW_ALT),)
            case Enhanced():
                self._status = wording.BEGINNING
            case Restarted():
                self._restart()
            case Ended(event):
                self.event = event

    def views(self) -> list[View]:
        """The messages, the first of them always there."""
        if self.event is not None:
            return self._final(self.event)
        if not self._parts:
            return [View(self._status, self._preview, (self._stop,), waiting=True)]
        *full, last = self._parts
        growing = View(last.text, buttons=(self._stop,), closing_chars=last.closing_chars)
        return [*(View(part.text, complete=True) for part in full), growing]

    def divide(self, life: Life, shown: View | None) -> list[Cut] | None:
        """End the growing message, and go on in a new one, if its life asks for it and there is a good place.

        Args:
            life: Of that message.
            shown: What of it is shown.

        Returns:
            All places where the answer is divided by now, to be recorded; None if nothing has changed.
        """
        if self.event is not None or not self._parts:
            return None
        shown_chars = len(shown.text) - shown.closing_chars if shown is not None and not shown.waiting else 0
        at = find(self._text, self._parts, life, shown_chars)
        if at is None:
            return None
        self._cuts = [*self._valid_cuts(self._text), Cut.of(self._text, at)]
        self._parts = self._split(self._text)
        return self._cuts

    def notice(self, text: str) -> list[View]:
        """The final messages of a job that has no end of its own, below what it has written."""
        return self._ended(text)

    def _split(self, text: str) -> list[Part]:
        cuts = [cut.at for cut in self._valid_cuts(text)]
        return split(text, self._limit, self._measure, self._parts, cuts)

    def _valid_cuts(self, text: str) -> list[Cut]:
        """Those that lie within a text, unless it has become another one."""
        return [cut for cut in self._cuts if cut.at < len(text) and cut.fits(text)]

    def _restart(self) -> None:
        self._text, self._parts, self._preview = "", [], ()
        self._status = wording.BEGINNING

    def _final(self, event: Event) -> list[View]:
        if event.type == "finished" and self._asked is not None:
            return [self._drawn(event, self._asked)]
        if self._from_knowledge and self._text:
            return self._quoted(event)
        views = self._ended(wording.ending(event, bool(self._parts)))
        if event.failure is not None and event.failure.code == RefusedContentError.code:
            views[-1] = replace(views[-1], buttons=(Button("appeal", self._job_id),))
        return views

    def _drawn(self, event: Event, asked: ImagePrompt) -> View:
        text = self._with_below(wording.drawn(event, asked, len(self.pictures)))
        return View(text, self.pictures, image_buttons(self._job_id, len(self.pictures)), complete=True)

    def _quoted(self, event: Event) -> list[View]:
        text = answers.shown(self._text, event.answer)
        note = self._with_below(wording.ending(event, any_text=True))
        parts = split(f"{text}\n\n{note}" if note else text, self._limit, self._measure)
        buttons = answer_buttons(self._job_id) if event.answer is not None else ()
        *before, last = [part.text for part in parts]
        return [*(View(each, complete=True) for each in before), View(last, buttons=buttons, complete=True)]

    def _ended(self, note: str | None) -> list[View]:
        text, parts, note = self._text, self._parts, self._with_below(note)
        if note:
            # A note about the end is no code, even if the answer ends within a block of it.
            ended = text + parts[-1].text[len(parts[-1].text) - parts[-1].closing_chars :] if parts else ""
            parts = self._split(f"{ended.rstrip()}\n\n{note}" if parts else note)
        return [View(part.text, complete=True) for part in parts]

    def _with_below(self, note: str | None) -> str:
        return "\n\n".join(part for part in (note, self._below) if part)


def answer_buttons(job_id: str) -> tuple[Button, ...]:
    """What can be said of an answer from knowledge: that it helped, that it did not, or that a person is wanted."""
    actions: tuple[Action, ...] = ("helpful", "unhelpful", "human")
    return tuple(Button(action, job_id) for action in actions)


def image_buttons(job_id: str, count: int) -> tuple[Button, ...]:
    """What can be done with finished pictures: with each of them, and with all."""
    each = [Button("vary", job_id, index) for index in range(count)]
    each += [Button("upscale", job_id, index) for index in range(count)]
    more: tuple[Action, ...] = ("more",) if count else ()
    actions: tuple[Action, ...] = ("reroll", *more, "edit", "prompt", "delete")
    return (*each, *(Button(action, job_id) for action in actions))
