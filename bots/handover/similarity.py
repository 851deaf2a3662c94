"""Whether two short texts say much the same, by their letters: cheap, and good for any script."""

from __future__ import annotations

import math
from collections import Counter

_LETTERS = 3
#: Cosine of trigram counts from which two texts count as one; by eye, on paraphrases of a word or two.
_ALIKE = 0.8


def alike(one: str, other: str) -> bool:
    """Whether two texts are near-duplicates."""
    first, second = _trigrams(one), _trigrams(other)
    product = sum(count * second[gram] for gram, count in first.items())
    norm = math.sqrt(sum(n * n for n in first.values()) * sum(n * n for n in second.values()))
    return norm > 0 and product / norm >= _ALIKE


def _trigrams(text: str) -> Counter[str]:
    joined = " ".join("".join(letter if letter.isalnum() else " " for letter in text.casefold()).split())
    return Counter(joined[at : at + _LETTERS] for at in range(max(1, len(joined) - _LETTERS + 1)))
