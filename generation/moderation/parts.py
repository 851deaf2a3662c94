"""Long texts in parts that overlap: what reads only so much at once still reads all of it."""

from __future__ import annotations


def windows(text: str, window_chars: int) -> list[str]:
    """A text in parts that overlap by a fifth: what is looked for may stand anywhere."""
    overlap_chars = window_chars // 5
    starts = range(0, max(1, len(text) - overlap_chars), window_chars - overlap_chars)
    return [text[start : start + window_chars] for start in starts]
