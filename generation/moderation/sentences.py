"""Growing text cut into sentences: what a filter can judge, and the most that is held back from a reader."""

from __future__ import annotations

import re

#: An end of a sentence: a mark with what closes behind it and a space, a new line, or a mark that needs neither, of
#: Chinese, Japanese, Arabic, Indic, Ethiopic, Armenian, Burmese, Khmer and Tibetan writing.
_END = re.compile(r"[.!?…]+[\"'”’)\]*_`]*(?=\s)|[。！？；｡؟۔।॥።։။។།]+[”’」』）]*|\n+")
#: Shorter pieces wait for the next: one letter a sentence would hide a word. A sign that stands for a syllable or a
#: word counts for several letters.
LEAST_WIDTH = 4
_SIGN_WIDTH = 3
#: Without an end of a sentence a piece ends at the next space or comma after this, or at twice as much.
MOST_WIDTH = 300
_PAUSE = re.compile(r"[\s，、：؛،]")


def width(text: str) -> int:
    """How much a text says, in letters; the number of a list's entry is nothing by itself."""
    return sum(_SIGN_WIDTH if "\u2e80" <= character <= "\U0003ffff" else 1 for character in text.strip())


class SentenceBuffer:
    """Collects text and gives it out in sentences."""

    def __init__(self) -> None:
        self._text = ""

    def push(self, text: str) -> list[str]:
        """Add text.

        Returns:
            The sentences that are complete now; together with ``rest`` they are all that was pushed.
        """
        self._text += text
        complete: list[str] = []
        while (end := self._cut()) > 0:
            complete.append(self._text[:end])
            self._text = self._text[end:]
        return complete

    def rest(self) -> str:
        """What is left at the end of the text, and forget it."""
        text, self._text = self._text, ""
        return text

    def _cut(self) -> int:
        """Where the first complete sentence ends, 0 if none does."""
        for match in _END.finditer(self._text):
            if width(self._text[: match.end()]) >= LEAST_WIDTH:
                return match.end()
        at = _position(self._text, MOST_WIDTH)
        if at < 0:
            return 0
        if pause := _PAUSE.search(self._text, at):
            return pause.end()
        return max(0, _position(self._text, 2 * MOST_WIDTH))


def _position(text: str, wanted: int) -> int:
    """Behind which character a text has this width, -1 if it has less."""
    if len(text) * _SIGN_WIDTH < wanted:
        return -1
    taken = 0
    for index, character in enumerate(text, 1):
        taken += width(character) or 1
        if taken >= wanted:
            return index
    return -1
