"""Text to sentences, in scripts with and without spaces."""

from __future__ import annotations

import re

_ABBREVIATIONS = ("e.g.", "i.e.", "etc.", "vs.", "cf.", "Mr.", "Mrs.", "Dr.", "No.", "approx.", "resp.", "St.")
_END = re.compile(
    r"(?<![.!?])[.!?]++[\"')\]]*+(?=\s+[^\sa-z])|[\u3002\uff01\uff1f\uff1b]+[\u201d\u300d\u300f\uff09]*|\n{2,}"
)


def sentences_of(text: str) -> list[str]:
    """Sentences in order, stripped; nothing of the text but white space is lost."""
    sentences: list[str] = []
    start = 0
    for match in _END.finditer(text):
        sentence = text[start : match.end()].strip()
        if not sentence or sentence.endswith(_ABBREVIATIONS):
            continue
        sentences.append(sentence)
        start = match.end()
    rest = text[start:].strip()
    return [*sentences, rest] if rest else sentences
