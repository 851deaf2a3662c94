"""Terms for the lexical ranker: lower-case words without stop words, and pairs of characters where no spaces are."""

from __future__ import annotations

import re
import unicodedata

MAX_TERM_CHARS = 40
_RUN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]+|[^\W_]+(?:[-._+/@:][^\W_]+)*\+*")
_PART = re.compile(r"[^\W_]+")
_SPACELESS = re.compile(r"[\u3400-\u9fff\uf900-\ufaff\u3040-\u30ff\uac00-\ud7af]")

STOP_WORDS = frozenset(
    """
    a about above after again all also am an and any are as at be because been before being below between both but
    by can could did do does doing done down during each either else ever every few for from further get gets
    getting got had has have having he her here hers him his how i if in into is it its itself just know let like
    may me might mine more most must my myself need no nor not of off on once one only or other our ours out over
    own please same shall she should so some such than that the their theirs them themselves then there these they
    this those through to too under until up upon us use used using very want was way we were what when where
    whether which while who whom whose why will with within without would you your yours yourself
    """.split()  # noqa: SIM905 - so many quotes are hard to read
)
#: Function words of questions and statements; a pair made of two of their characters says nothing.
STOP_CHARACTERS = frozenset(
    "的了吗呢吧啊是在有和与或及个这那我你他她它们什么怎样如何为哪些谁何请问能会要不可以就都也很到把被让从对于之其而"
)


def terms_of(text: str) -> list[str]:
    """Terms of a text, in order, with repetitions.

    A compound such as ``foo-data`` counts whole and in its parts. Runs of Chinese, Japanese or Korean characters become
    overlapping pairs, which needs no dictionary of words.
    """
    terms: list[str] = []
    for match in _RUN.finditer(unicodedata.normalize("NFKC", text).lower()):
        run = match.group()
        if _SPACELESS.match(run):
            terms.extend(_pairs(run))
        else:
            terms.extend(_words(run))
    return terms


def _words(run: str) -> list[str]:
    parts = _PART.findall(run)
    words = [stem(part) for part in parts if part not in STOP_WORDS and (len(part) > 1 or part.isdigit())]
    if len(parts) > 1:
        words.append(run)
    return [word[:MAX_TERM_CHARS] for word in words]


def _pairs(run: str) -> list[str]:
    if len(run) == 1:
        return [] if run in STOP_CHARACTERS else [run]
    pairs = (run[start : start + 2] for start in range(len(run) - 1))
    return [pair for pair in pairs if not (pair[0] in STOP_CHARACTERS and pair[1] in STOP_CHARACTERS)]


def stem(word: str) -> str:
    """English plurals and verb endings off: enough that "packages" finds "package".

    Source: Harman, "How effective is suffixing?", 1991 (the S stemmer), with -ing and -ed added for long words.
    """
    if not word.isascii() or len(word) < 4:
        return word
    if word.endswith("ies") and not word.endswith(("eies", "aies")):
        return word[:-3] + "y"
    if word.endswith("s") and not word.endswith(("us", "ss", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        stem = word[: -len(ending)]
        if word.endswith(ending) and len(stem) >= 4:
            return stem[:-1] if stem[-1] == stem[-2] and stem[-1] not in "ls" else stem
    return word[:-1] if word.endswith("e") and len(word) > 4 else word
