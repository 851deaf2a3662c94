"""A passage trimmed to the sentences that bear on a question, word for word."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from generation.retrieval.sentences import sentences_of
from generation.retrieval.tokens import terms_of

MAX_QUOTE_CHARS = 600
#: A passage that is no longer is quoted whole: a reader sees it at a glance.
WHOLE_CHARS = 240
#: Share of the best sentence's relevance that its neighbours need to stay beside it.
KEPT_SHARE = 0.6
#: What terms in common add to the cosine of a question and a sentence.
TERMS_WEIGHT = 0.5
_ENDS = tuple(end + closing for end in ".!?\u3002\uff01\uff1f\uff1b" for closing in ("", '"', ")", "\u201d", "\uff09"))

_LEANING = re.compile(
    r"(?:in |for |with |after |by )?(?:it|its|they|their|them|this|that|these|those|such|otherwise|therefore|so|then)\b"
    r"|\u8fd9|\u90a3|\u5b83|\u4ed6|\u5426\u5219|\u56e0\u6b64|\u6b64|\u5176",  # this, that, it, they, else, therefore
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Quote:
    """A run of sentences of a passage.

    Args:
        text: Word for word as the passage has them.
        begins: Whether the passage begins with it.
        ends: Whether the passage ends with it.
    """

    text: str
    begins: bool
    ends: bool

    @property
    def shown(self) -> str:
        """With dots where something is left out."""
        return f"{'' if self.begins else '… '}{self.text}{'' if self.ends else ' …'}"


def worth_trimming(passage: str) -> bool:
    """Whether a passage is too long to be quoted whole."""
    return len(passage) > WHOLE_CHARS


def trimmed(question: str, passage: str, sentences: Sequence[str], cosines: Sequence[float]) -> Quote:
    """The sentences of a passage that bear on a question, and those without which they are not understood.

    Args:
        question: What was asked.
        passage: What was found.
        sentences: The passage's, from `sentences_of`.
        cosines: Of question and each sentence, -1 to 1.
    """
    if not worth_trimming(passage) or len(sentences) < 2:
        return _cut(passage, 0, len(passage))
    places, opens = _places(passage, sentences), _opening(sentences)
    asked = set(terms_of(question))
    scores = [
        cosine + TERMS_WEIGHT * len(asked & set(terms_of(sentence))) / max(len(asked), 1)
        for sentence, cosine in zip(sentences, cosines, strict=True)
    ]
    best = max(range(len(scores)), key=lambda at: scores[at])
    first = last = best
    while True:
        before, after = first - 1, last + 1
        size = places[last][1] - places[first][0]
        # An introduction belongs to what follows it: "Run this command:" is no answer, nor is the command alone.
        if after < len(scores) and opens[last] and size + len(sentences[after]) <= MAX_QUOTE_CHARS:
            last = after
        elif (
            before >= 0
            and (opens[before] or _leans(sentences[first]))
            and size + len(sentences[before]) <= MAX_QUOTE_CHARS
        ):
            first = before
        else:
            near = [at for at in (before, after) if 0 <= at < len(scores) and scores[at] >= KEPT_SHARE * scores[best]]
            near = [at for at in near if size + len(sentences[at]) <= MAX_QUOTE_CHARS]
            if not near:
                break
            chosen = max(near, key=lambda at: scores[at])
            first, last = min(first, chosen), max(last, chosen)
    return _cut(passage, places[first][0], places[last][1])


def sentences_in(passage: str) -> list[str]:
    """The sentences that `trimmed` chooses among; a paragraph's end is a sentence's."""
    return [sentence for part in passage.split("\n\n") for sentence in sentences_of(part)]


def _leans(sentence: str) -> bool:
    """Whether a sentence speaks of what the one before has named."""
    return bool(_LEANING.match(sentence))


def _opening(sentences: Sequence[str]) -> list[bool]:
    """Which sentences are not ended by a mark and so introduce the next; what is introduced introduces nothing."""
    found: list[bool] = []
    for sentence in sentences:
        found.append(not sentence.rstrip().endswith(_ENDS) and not (found and found[-1]))
    return found


def _places(passage: str, sentences: Sequence[str]) -> list[tuple[int, int]]:
    found: list[tuple[int, int]] = []
    place = 0
    for sentence in sentences:
        begin = max(passage.find(sentence, place), place)
        place = begin + len(sentence)
        found.append((begin, place))
    return found


def _cut(passage: str, begin: int, end: int) -> Quote:
    """A part of a passage, bounded in any case."""
    end = min(end, begin + MAX_QUOTE_CHARS)
    text = passage[begin:end].strip()
    return Quote(text, not passage[:begin].strip(), not passage[end:].strip())
