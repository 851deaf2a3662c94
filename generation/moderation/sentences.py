"""Growing text cut into sentences: what a filter can judge, and the most that is held back from a reader."""

from __future__ import annotations

import re

#: An end of a sentence: a mark with what closes behind it and a space, a Chinese mark, or a new line.
_END = re.compile(r"[.!?…]+[\"'”’)\]*_`]*(?=\s)|[。！？；]+[”’」』）]*|\n+")
#: Shorter pieces wait for the next: one letter a sentence would hide a word.
LEAST_CHARS = 12
#: Without an end of a sentence a piece ends at the next space after this.
MOST_CHARS = 300


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
            if match.end() >= LEAST_CHARS:
                return match.end()
        if len(self._text) <= MOST_CHARS:
            return 0
        space = self._text.find(" ", MOST_CHARS)
        if space >= 0:
            return space + 1
        return 2 * MOST_CHARS if len(self._text) > 2 * MOST_CHARS else 0
