"""Where a message that can grow no longer ends and the next one goes on: between blocks, never within one.

Streams live for some minutes only. A message whose stream ages is ended at the next place where no code block, list,
table or quotation goes on, so that both messages read well by themselves; where no such place comes in time, the
message is edited until there is one. What was decided is recorded, so that another process divides the answer alike.
"""

from __future__ import annotations

import enum
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from bots.delivery.breaks import Boundary, Fence
from bots.delivery.splitting import Part, render

_DIGEST_CHARS = 16
_LINE = re.compile(r"[^\n]*\n|[^\n]+")
#: Lines of blocks that may go on below: list items and what is indented under them, table rows, quotations.
_BLOCK_LINES = tuple(
    re.compile(pattern) for pattern in (r"[ \t]*(?:[-*+]|\d{1,9}[.)])(?:\s|$)|(?: {2,}|\t)\S", r"[ \t]*\|", r"[ \t]*>")
)
#: With fewer characters a line may still become one of a block.
_KNOWN_CHARS = 12
#: A line that announces what follows it.
_ANNOUNCES = (":", "\uff1a")
_SENTENCE_END = re.compile(r"[.!?][\"')\]]?[ \t]+(?=[^\W_a-z])|[\u3002\uff01\uff1f](?=\w)")
#: Marks that come in pairs; between the two there is no cut.
_PAIRED = ("**", "__", "~~", "`", "$")


class Life(enum.IntEnum):
    """How long a message can still grow in the way in which it is shown."""

    FRESH = 0
    AGING = 1
    OVER = 2


@dataclass(frozen=True, slots=True)
class Cut:
    """A place at which an answer was divided.

    Attributes:
        at: Characters before it.
        digest: Of those characters: an answer that was begun anew is not cut at the old one's places.
    """

    at: int
    digest: str

    @classmethod
    def of(cls, text: str, at: int) -> Cut:
        """The cut of a text at a place."""
        return cls(at, _digest(text[:at]))

    def fits(self, text: str) -> bool:
        """Whether a text begins as the one that was cut."""
        return _digest(text[: self.at]) == self.digest


def find(text: str, parts: Sequence[Part], life: Life, shown_chars: int) -> int | None:
    """Where the last message of a growing answer may end.

    Args:
        text: The answer's source.
        parts: Its messages, at least one.
        life: How long the last one can still grow. While it ages, only places are taken that lie beyond what is shown;
            once that is over, any place between blocks or, within a plain paragraph, between sentences.
        shown_chars: How many characters of the last message people see already.

    Returns:
        The place in characters of the source, with something on both sides of it; None if there is none now.
    """
    if life is Life.FRESH:
        return None
    start, fence = parts[-1].start, parts[-2].fence if len(parts) > 1 else None
    places = list(_between_blocks(text, start, fence))
    beyond = [each for each in places if len(render(text[start : each.at], fence, each)) >= shown_chars]
    if beyond:
        return beyond[-1].at
    if life is Life.AGING:
        return None
    return places[-1].at if places else _between_sentences(text, start, parts[-1].fence)


def _between_blocks(text: str, start: int, fence: Fence | None) -> Iterator[Boundary]:
    """Starts of lines that begin something new: a paragraph, a heading, a list, a table, a code block."""
    before, apart = "", False
    for found in _LINE.finditer(text, start):
        line, opened = found.group(), fence
        fence = Boundary.after(text, found.start(), found.end(), opened).fence
        if opened is None and before and line.strip() and _is_new(before, line, apart):
            yield Boundary(found.start(), None, "", on_fence=False)
        apart = fence is None and (opened is not None or not line.strip())
        before = line.rstrip() if line.strip() else before


def _is_new(before: str, line: str, apart: bool) -> bool:
    """Whether a line belongs to nothing above it.

    Args:
        before: The last line above it that is not blank.
        line: The line, perhaps still growing.
        apart: Whether a blank line or the end of a code block lies between.
    """
    if before.startswith("#") or before.endswith(_ANNOUNCES):
        return False
    if not line.endswith("\n") and len(line.strip()) < _KNOWN_CHARS:
        return False
    if line.startswith(("# ", "## ", "### ", "#### ", "```", "~~~")):
        return True
    return apart and not any(kind.match(line) and kind.match(before) for kind in _BLOCK_LINES)


def _between_sentences(text: str, start: int, fence: Fence | None) -> int | None:
    """The last end of a sentence in the last line, if that is plain text."""
    begun = max(text.rfind("\n", start) + 1, start)
    line, above = text[begun:], text[start:begun].removesuffix("\n").rpartition("\n")[2]
    if fence is not None or "|" in line or line.startswith("#"):
        return None
    if any(kind.match(each) for kind in _BLOCK_LINES for each in (line, above)):
        return None
    for found in reversed([*_SENTENCE_END.finditer(line)]):
        said = line[: found.end()]
        if said.count("[") == said.count("]") and all(said.count(mark) % 2 == 0 for mark in _PAIRED):
            return begun + found.end()
    return None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGEST_CHARS]
