"""Long texts in parts that overlap: what reads only so much at once still reads all of it."""

from __future__ import annotations

import re

#: A fenced block, as attached files and pasted texts are shown, to its end or that of the text; quotations' lines.
_QUOTATION = re.compile(
    r"^(`{3,}|~{3,})[^\n]*\n(?P<fenced>.*?)(?:^\1|\Z)|(?P<lines>(?:^>[^\n]*(?:\n|\Z))+)", re.MULTILINE | re.DOTALL
)


def quotations(text: str) -> list[str]:
    """What a text only quotes: files, code blocks, other people's messages."""
    return [
        match["fenced"] or match["lines"] for match in _QUOTATION.finditer(text) if match["fenced"] or match["lines"]
    ]


def windows(text: str, window_chars: int) -> list[str]:
    """A text in parts that overlap by a fifth: what is looked for may stand anywhere."""
    overlap_chars = window_chars // 5
    starts = range(0, max(1, len(text) - overlap_chars), window_chars - overlap_chars)
    return [text[start : start + window_chars] for start in starts]
