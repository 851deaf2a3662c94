"""What a message of an answer shows, in no platform's terms."""

from __future__ import annotations

from dataclasses import dataclass

from bots.delivery.buttons import Button


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture in a message.

    Attributes:
        name: File name with its extension.
        data: The file's bytes.
        alt: What it shows, for people who cannot see it.
        covered: Moderation wants it behind a cover that a reader lifts; where there are none it is not shown.
    """

    name: str
    data: bytes
    alt: str
    covered: bool = False


@dataclass(frozen=True, slots=True)
class View:
    """One message of an answer as it should look now; equal views need no edit.

    Attributes:
        text: Markdown, within the surface's limit.
        pictures: In order; they replace those that were there.
        buttons: In order; the surface arranges them in rows.
        complete: Whether this message changes no more, so that whatever keeps it open can be closed.
        waiting: Whether the text only says what is being waited for.
        closing_chars: How many characters at the end of the text close a code block that is still growing, so that
            whoever appends instead of editing leaves them away.
    """

    text: str
    pictures: tuple[Picture, ...] = ()
    buttons: tuple[Button, ...] = ()
    complete: bool = False
    waiting: bool = False
    closing_chars: int = 0
