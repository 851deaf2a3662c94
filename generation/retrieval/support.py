"""Whether a passage supports a sentence: nothing is shown as an answer that it does not.

The check is one-sided: what it refuses may still be true, but little passes that is not. A sentence has to say, in the
same order, what one sentence of the passage says, and may leave words out, but no negation, no exception and nothing
that the other has not. "It" and "they" at the beginning may be said with the words of the sentence before.
``palaver evaluate answers`` measures it on labelled pairs; a bag of words let a third of what is false pass.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from generation.retrieval.sentences import sentences_of
from generation.retrieval.tokens import stem

#: Most words, or characters of Chinese, of a subject that is taken from the sentence before.
SUBJECT_TOKENS = 6
_TOKEN = re.compile(r"[\u3400-\u9fff]|n't|[^\W_\u3400-\u9fff]+(?:[-._+/@:][^\W_\u3400-\u9fff]+)*|--?[a-z][\w-]*")
_SILENT = frozenset("a an the that is are be was were been it its this these those of 的 了 是 为 会 将 就 也".split())  # noqa: SIM905 - quotes are hard to read
_NEGATIONS = frozenset(
    "no not never none nobody nothing neither nor without cannot n't 不 没 無 无 未 非 勿 免 禁".split()  # noqa: SIM905 - likewise
)
_EXCEPTIONS = frozenset("unless except only 除 只 仅".split())  # noqa: SIM905 - so many quotes are hard to read
_PRONOUNS = (
    "it ",
    "its ",
    "they ",
    "their ",
    "this ",
    "these ",
    "larger ones ",
    "ones ",
    "它",
    "它们",
    "他们",
    "其",
    "这",
)


def supported(sentence: str, passage: str) -> bool:
    """Whether a passage says what a sentence says.

    Args:
        sentence: One statement.
        passage: What it cites.
    """
    said = _plain(sentence)
    if not said or said in _plain(passage):
        return True
    mine = _tokens(said)
    before: list[str] = []
    for each in (found for part in passage.split("\n\n") for found in sentences_of(part)):
        theirs = _tokens(each)
        if mine and (_follows(mine, theirs) or (_leans(each) and _follows_subject(mine, before, theirs))):
            return True
        before = theirs
    return False


def unsupported(text: str, passages: Sequence[str]) -> list[str]:
    """Sentences of a text that none of the passages supports."""
    return [
        sentence for sentence in sentences_of(text) if not any(supported(sentence, passage) for passage in passages)
    ]


def _follows(mine: list[str], theirs: list[str]) -> bool:
    """Whether all of one are in the other, in order, and what is left out turns nothing round."""
    place, first = 0, -1
    left_out: list[str] = []
    for token in mine:
        try:
            found = theirs.index(token, place)
        except ValueError:
            return False
        left_out += theirs[place:found] if first >= 0 else []
        first = found if first < 0 else first
        place = found + 1
    rest = (*theirs[:first], *left_out, *theirs[place:])
    return not _NEGATIONS & {*theirs[:first], *left_out} and not _EXCEPTIONS & {*rest}


def _follows_subject(mine: list[str], before: list[str], theirs: list[str]) -> bool:
    """Whether a sentence begins with words of the one before, and goes on as this one does."""
    return any(
        set(mine[:at]) <= set(before) and len(mine) > at and _follows(mine[at:], theirs)
        for at in range(1, SUBJECT_TOKENS + 1)
    )


def _leans(sentence: str) -> bool:
    return sentence.lower().startswith(_PRONOUNS)


def _tokens(text: str) -> list[str]:
    parted = text.lower().replace("n't", " n't").replace("cannot", "can not")
    return [stem(token) for token in _TOKEN.findall(parted) if token not in _SILENT]


def _plain(text: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"\[\d+\]", "", text)).strip(" …")
