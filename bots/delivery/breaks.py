"""Where a Markdown text may be cut: code blocks that are open at a place, and how good a place is for a cut."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

# A fence may stand behind a list marker. Longer ones are not taken for fences, so that repairing them stays short.
_OPENING = re.compile(
    r"[ \t]{0,12}(?:(?:[-*+]|\d{1,3}[.)])[ \t]{1,4})?(?P<marks>`{3,16}|~{3,16})(?P<info>[^`~\n]{0,40})"
)
_LONGEST_FENCE = 90  # longer than anything that the two patterns match
_CLOSING = re.compile(r"[ \t]{0,12}(?P<marks>`{3,40}|~{3,40})[ \t]{0,20}")
_LANGUAGE = re.compile(r"[ \t]*([A-Za-z0-9_+#.-]{0,20})")
_LIST_ITEM = re.compile(r"[ \t]*(?:[-*+]|\d{1,9}[.)])[ \t]")
# What stays in one piece: links, images and inline code, also if their end has not been read yet.
_PIECE = re.compile(r"!?\[[^\]\n]*(?:\]\([^)\n]*\)?|\]?$)|`[^`\n]+(?:`|$)|https?://\S+")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?[ \t]|[\u3002\uff01\uff1f]")
_WORD_END = re.compile(r"[ \t]")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


class Quality(enum.IntEnum):
    """How good a place for a cut is; lower is better."""

    PARAGRAPH = 0
    BLOCK = 1
    LINE = 2
    WITHIN_BLOCK = 3
    SENTENCE = 4
    WORD = 5
    WORD_WITHIN_BLOCK = 6
    CHARACTER = 7
    WITHIN_PIECE = 8
    BESIDE_FENCE = 9


#: A cut of this quality is taken at once if the message is at least so full; otherwise a worse one may be better.
_WANTED_FILL = {
    Quality.PARAGRAPH: 0.5,
    Quality.BLOCK: 0.35,
    Quality.LINE: 0.5,
    Quality.WITHIN_BLOCK: 0.5,
    Quality.SENTENCE: 0.5,
    Quality.WORD: 0.5,
    Quality.WORD_WITHIN_BLOCK: 0.5,
}


@dataclass(frozen=True, slots=True)
class Fence:
    """An open code block."""

    marks: str
    language: str

    @property
    def opening(self) -> str:
        """The line that opens it again."""
        return f"{self.marks}{self.language}\n"

    @property
    def closing(self) -> str:
        """What closes it, at the start of a line."""
        return self.marks


class Boundary(NamedTuple):
    """A place between two grapheme clusters. A tuple, because there is one for every character.

    Attributes:
        at: Characters before it.
        fence: The code block that is open there.
        suffix: What closes that block.
        on_fence: Whether it lies on the line that opens or closes a block, or on what may become one.
    """

    at: int
    fence: Fence | None
    suffix: str
    on_fence: bool

    @classmethod
    def after(cls, text: str, line_start: int, at: int, fence: Fence | None) -> Boundary:
        """The boundary at ``at``, on the line from ``line_start``, where ``fence`` was open."""
        if at - line_start > _LONGEST_FENCE:
            return cls(at, fence, _newline(text, at) + fence.closing if fence else "", on_fence=False)
        line = text[line_start:at].removesuffix("\n").removesuffix("\r")
        if fence is None:
            opening = _OPENING.fullmatch(line)
            if not opening:
                return cls(at, None, "", on_fence=line.strip() in ("`", "``", "~", "~~"))
            language = _LANGUAGE.match(opening["info"])
            opened = Fence(opening["marks"], language[1] if language else "")
            return cls(at, opened, _newline(text, at) + opened.closing, on_fence=True)
        closing = _CLOSING.fullmatch(line)
        if closing and closing["marks"].startswith(fence.marks):
            return cls(at, None, "", on_fence=True)
        begun = line.strip()
        if begun and fence.marks.startswith(begun):
            # The text's own end of the block is being written: complete it rather than adding a line.
            return cls(at, fence, fence.marks.removeprefix(begun), on_fence=True)
        return cls(at, fence, ("" if at == line_start else _newline(text, at)) + fence.closing, on_fence=False)


def best(text: str, start: int, boundaries: Sequence[Boundary]) -> Boundary:
    """The best of the places where a message that begins at ``start`` may end.

    Args:
        text: The source; nothing behind the character after the last boundary is looked at.
        start: Where the message begins.
        boundaries: Places where the message would fit, in order.

    Returns:
        The last one of the best quality that leaves the message full enough, else of the best quality at all.
    """
    window = text[start : boundaries[-1].at + 1]
    latest = dict(_rated(window, start, boundaries))
    full = boundaries[-1].at - start
    for quality, fill in _WANTED_FILL.items():
        if quality in latest and latest[quality].at - start >= fill * full:
            return latest[quality]
    return latest[min(latest)]


def _rated(window: str, start: int, boundaries: Sequence[Boundary]) -> Iterator[tuple[Quality, Boundary]]:
    within_piece = {at for piece in _PIECE.finditer(window) for at in range(piece.start() + 1, piece.end())}
    sentence_ends = {end.end() for end in _SENTENCE_END.finditer(window)}
    word_ends = {end.end() for end in _WORD_END.finditer(window)}
    lines = _LINE.findall(window)
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line))
    number = 0
    for boundary in boundaries:
        at = boundary.at - start
        while number + 1 < len(starts) and starts[number + 1] <= at:
            number += 1
        if at == starts[number] and number > 0:
            following = lines[number] if number < len(lines) else ""
            yield _between_lines(lines[number - 1], following, boundary), boundary
        elif boundary.on_fence:
            yield Quality.BESIDE_FENCE, boundary
        elif at in within_piece and boundary.fence is None:
            yield Quality.WITHIN_PIECE, boundary
        else:
            loose = boundary.fence is None and not lines[number].lstrip().startswith("|")
            yield _within_line(loose, at in sentence_ends, at in word_ends), boundary


def _between_lines(before: str, after: str, boundary: Boundary) -> Quality:
    opening, closing = _OPENING.fullmatch(before.rstrip()), _CLOSING.fullmatch(after.rstrip("\r\n"))
    if boundary.fence is not None:
        # An empty block would be left on one side.
        return Quality.BESIDE_FENCE if opening or closing else Quality.WITHIN_BLOCK
    if not before.strip() or not after.strip() or after.startswith("#"):
        return Quality.PARAGRAPH
    if _OPENING.match(after) or _LIST_ITEM.match(after) or _CLOSING.fullmatch(before.rstrip()):
        return Quality.BLOCK
    if before.lstrip().startswith("|") and after.lstrip().startswith("|"):
        return Quality.WITHIN_BLOCK
    return Quality.WITHIN_BLOCK if after.startswith((" ", "\t")) else Quality.LINE


def _within_line(loose: bool, sentence_end: bool, word_end: bool) -> Quality:
    if loose and sentence_end:
        return Quality.SENTENCE
    if word_end:
        return Quality.WORD if loose else Quality.WORD_WITHIN_BLOCK
    return Quality.CHARACTER


def _newline(text: str, at: int) -> str:
    """Nothing if there is one before ``at`` already."""
    return "" if text[at - 1 : at] == "\n" else "\n"
