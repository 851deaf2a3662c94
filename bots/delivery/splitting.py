"""Cutting a long answer into messages that each stand on their own, while it is still growing.

The text is read from left to right, one grapheme cluster at a time. The first cluster that no longer fits decides the
cut, and the cut looks at nothing behind it: so whatever follows later, messages that are already full stay as they
are, and only the last one is ever edited. Where in a full message to cut is decided in ``bots.delivery.breaks``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex

from bots.delivery.breaks import Boundary, Fence, best

#: Below this, the repair of a cut code block could take up a whole message.
MIN_LIMIT = 100

Measure = Callable[[str], int]

_CLUSTER = regex.compile(r"\X")
_BLANK_LINES = re.compile(r"(?:[ \t]*\r?\n)+")


def utf16_units(text: str) -> int:
    """Length as platforms count that are written in JavaScript: one or two units a code point."""
    return len(text) + sum(character > "\uffff" for character in text)


@dataclass(frozen=True, slots=True)
class Part:
    """One message.

    Attributes:
        text: What to post: the stretch of the source, without white space at its ends, its code block closed and, where
            it began in one, opened again with its language.
        start: Where the stretch begins in the source, in characters.
        end: Where it ends; the next stretch begins there.
        fence: The code block that is open there.
        closing_chars: How many characters at the end of ``text`` close that block.
    """

    text: str
    start: int
    end: int
    fence: Fence | None = None
    closing_chars: int = 0


def split(
    text: str, limit: int, measure: Measure = len, before: Sequence[Part] = (), cuts: Sequence[int] = ()
) -> list[Part]:
    """Cut a text into messages.

    Cuts fall, as far as possible, between paragraphs, blocks, list items, lines, table rows, sentences and words, and
    not within links, inline code or grapheme clusters. Code blocks that are cut are closed and opened again.

    Args:
        text: Markdown, complete or still growing.
        limit: Longest message, in the unit of ``measure``, at least ``MIN_LIMIT``.
        measure: The platform's own count, additive over characters: ``len`` or ``utf16_units``.
        before: What an earlier call gave for the beginning of this text, with the same limit and measure: spares
            reading full messages again.
        cuts: Places where a message must end, in characters, ascending. Those behind ``before`` count.

    Returns:
        The messages, none of them blank; none at all for a blank text. For every text that begins with this one, all
        but the last are the same.
    """
    if limit < MIN_LIMIT:
        raise ValueError(f"limit must be at least {MIN_LIMIT}, not {limit}.")
    parts = list(before[:-1])
    start, fence = (parts[-1].end, parts[-1].fence) if parts else (0, None)
    while start < len(text):
        until = next((cut for cut in cuts if cut > start), None)
        boundary = _read(text[:until], start, fence, limit, measure)
        message = render(text[start : boundary.at], fence, boundary)
        if message.strip():
            parts.append(Part(message, start, boundary.at, boundary.fence, len(boundary.suffix)))
        start, fence = boundary.at, boundary.fence
    return parts


def _read(text: str, start: int, opened: Fence | None, limit: int, measure: Measure) -> Boundary:
    """Read one message from ``start``, where the code block ``opened`` is open; returns where it ends."""
    line_start, fence_before_line = start, opened
    used = measure(opened.opening) if opened else 0
    boundaries: list[Boundary] = []
    for cluster in _CLUSTER.finditer(text, start):
        piece = cluster.group()
        boundary = Boundary.after(text, line_start, cluster.end(), fence_before_line)
        if used + measure(piece) + measure(boundary.suffix) > limit:
            if boundaries:
                return best(text, start, boundaries)
            return _within_cluster(text, start, cluster.end(), opened, limit - used, measure)
        used += measure(piece)
        if piece.endswith("\n"):
            line_start, fence_before_line = boundary.at, boundary.fence
            boundary = Boundary.after(text, line_start, line_start, fence_before_line)
        boundaries.append(boundary)
    return boundaries[-1]


def _within_cluster(text: str, start: int, end: int, opened: Fence | None, budget: int, measure: Measure) -> Boundary:
    """The last resort: one cluster, such as a letter with a thousand accents, is longer than a message."""
    room = budget - (measure(opened.closing) + 1 if opened else 0)
    at = start + 1
    while at < end and measure(text[start : at + 1]) <= room:
        at += 1
    return Boundary.after(text, start, at, opened)


def render(stretch: str, opened: Fence | None, boundary: Boundary) -> str:
    """What a message shows of a stretch of the source.

    Args:
        stretch: The stretch.
        opened: The code block that is open where it begins.
        boundary: Where it ends.
    """
    if opened is None:
        blank = _BLANK_LINES.match(stretch)
        stretch = stretch[blank.end() :] if blank else stretch
    if boundary.fence is None and not boundary.suffix:
        stretch = stretch.rstrip()
    return (opened.opening if opened else "") + stretch + boundary.suffix
