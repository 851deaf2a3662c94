"""Blocked words in whatever spelling: leetspeak, repeated letters, split and starred words; whole words, not parts.

A list is compiled once. A text is then read piece by piece with look-ups in dictionaries, so that the time taken does
not grow with the length of the list.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from generation.moderation.expressions import compiled_pattern
from generation.moderation.innocent import COMMON, INNOCENT, INNOCENT_PHRASES
from generation.moderation.policy import WordList
from generation.moderation.spelling import Folded, Piece, fold, is_han, pieces, squeezed, stretches

#: Three of one letter are a stretched one: ``fuuuck`` contains ``fuck``.
_STRETCHED = re.compile(r"(.)\1{2,}")
_ENDINGS = ("s", "es", "ed", "er", "ers", "ing", "in", "ings", "y", "ies", "z")
_LONGEST_SPLIT = 24
_LEAST_LETTERS_FOR_ENDINGS = 3
#: Symbols that stand in place of a letter.
_HIDING = frozenset("*#")
_HIDDEN = re.compile(r"[*#]")
_HOLES = frozenset("-_.?%~\u2022\u00b7")
#: Letters that are left of a word of which one is hidden by a mark.
_LEAST_HOLED = 3


@dataclass(frozen=True, slots=True)
class _Entry:
    """A word of a list, or one of its forms.

    Args:
        letters: Folded, without spaces.
        phrase: Whether it consists of several words, which any spacing may part.
    """

    letters: str
    phrase: bool = False


@dataclass(frozen=True, slots=True)
class Match:
    """A place in a folded text."""

    start: int
    end: int


class WordMatcher:
    """Finds a list's words and patterns in folded texts.

    Args:
        words: As in ``WordList``; those in Han characters alone are left to ``chinese``.
        patterns: RE2 expressions.
        allowed: Words that are never matched.
    """

    def __init__(self, words: Iterable[str], patterns: Sequence[str] = (), allowed: Iterable[str] = ()) -> None:
        self._entries: dict[str, list[_Entry]] = {}
        self._by_length: dict[int, list[str]] = {}
        self._prefixes: set[str] = set()
        self._patterns = [compiled_pattern(pattern) for pattern in patterns]
        self._named: set[str] = set()
        inside: list[str] = []
        for word in words:
            folded = fold(word).text.strip()
            bare = "".join(_plain_letters(folded.strip("*")))
            if not bare or all(map(is_han, bare)):
                continue
            self._named.add(bare)
            if _runs_on(bare):
                folded = f"*{folded.strip('*')}*"
            if folded.startswith("*") or folded.endswith("*"):
                inside.append(_inside_expression(folded, bare))
            for entry in _forms(folded, bare):
                self._add(entry)
        self._allowed = {"".join(_plain_letters(fold(word).text)) for word in allowed}
        self._inside: Any = compiled_pattern("|".join(inside)) if inside else None

    def find(self, folded: Folded, parts: Sequence[Piece] | None = None) -> Iterator[Match]:
        """Every match, in no particular order.

        Args:
            folded: The text.
            parts: Its pieces, if they are known already.
        """
        parts = pieces(folded.text) if parts is None else parts
        if self._entries:
            innocent = _innocent_places(parts)
            for index in range(len(parts)):
                if index not in innocent:
                    yield from self._at(folded.text, parts, index)
        if self._inside is not None:
            yield from self._inside_pieces(parts)

    @property
    def has_patterns(self) -> bool:
        """Whether the list has expressions."""
        return bool(self._patterns)

    def find_patterns(self, text: Folded) -> Iterator[Match]:
        """Every match of an expression.

        Args:
            text: Folded, where an expression in plain letters finds its disguises, or plain, where one in other letters
                finds them.
        """
        for pattern in self._patterns:
            for match in pattern.finditer(text.text):
                if match.end() > match.start():
                    yield Match(match.start(), match.end())

    def _add(self, entry: _Entry) -> None:
        key = squeezed(entry.letters)
        self._entries.setdefault(key, []).append(entry)
        self._by_length.setdefault(len(entry.letters), []).append(entry.letters)
        self._prefixes.update(key[:end] for end in range(1, len(key) + 1))

    def _at(self, text: str, parts: Sequence[Piece], index: int) -> Iterator[Match]:
        piece = parts[index]
        for reading in piece.readings:
            if self._blocked(reading):
                yield Match(piece.start, piece.end)
                return
        if _HIDING & set(piece.raw) and self._starred(_HIDDEN.sub("*", piece.raw).strip("*")):
            yield Match(piece.start, piece.end)
            return
        yield from self._split(parts, index)
        yield from self._holed(text, parts, index)

    def _blocked(self, reading: str) -> _Entry | None:
        for entry in self._entries.get(squeezed(reading), ()):
            if stretches(reading, entry.letters) and not self._harmless(reading):
                return entry
        return None

    def _harmless(self, reading: str) -> bool:
        return reading in self._allowed or (reading in INNOCENT and reading not in self._named)

    def _starred(self, raw: str) -> bool:
        """Whether a word with some letters replaced by stars is a blocked one: ``sh*t``."""
        if "*" not in raw or 2 * raw.count("*") > len(raw):
            return False
        return any(
            all(star in ("*", letter) for star, letter in zip(raw, word, strict=True))
            for word in self._by_length.get(len(raw), ())
        )

    def _holed(self, text: str, parts: Sequence[Piece], index: int) -> Iterator[Match]:
        """Two pieces of one word with a mark in place of one letter between them: ``f-ck``, ``sh?t``."""
        if index + 1 == len(parts):
            return
        first, second = parts[index], parts[index + 1]
        if (
            second.start != first.end + 1
            or text[first.end] not in _HOLES
            or not (first.raw.isalpha() and second.raw.isalpha())
        ):
            return
        if (first.raw in COMMON and second.raw in COMMON) or len(first.raw) + len(second.raw) < _LEAST_HOLED:
            return
        if self._starred(f"{first.raw}*{second.raw}"):
            yield Match(first.start, second.end)

    def _split(self, parts: Sequence[Piece], index: int) -> Iterator[Match]:
        """Pieces that are blocked together: ``f u c k``, ``sh-it``."""
        taken: list[str] = []
        joined = ""
        for piece in parts[index : index + _LONGEST_SPLIT]:
            if not piece.readings:
                reading = piece.raw if piece.raw.isdigit() else ""
                reading = _digit_letters(reading)
            else:
                reading = piece.readings[0]
            if not reading:
                return
            joined += reading
            taken.append(reading)
            if squeezed(joined) not in self._prefixes:
                return
            if len(taken) < 2:
                continue
            entry = self._blocked(joined)
            if entry is not None and (entry.phrase or _was_split(taken)):
                yield Match(parts[index].start, piece.end)
                return

    def _inside_pieces(self, parts: Sequence[Piece]) -> Iterator[Match]:
        said = " ".join(reading for piece in parts for reading in piece.readings)
        if not self._inside.search(_STRETCHED.sub(r"\1", said)):
            return
        for piece in parts:
            for reading in piece.readings:
                if self._inside.search(_STRETCHED.sub(r"\1", reading)) and not self._harmless(reading):
                    yield Match(piece.start, piece.end)
                    break


@functools.lru_cache(maxsize=256)
def matcher(words: WordList) -> WordMatcher:
    """The compiled form of a list, made once for all requests that carry it."""
    return WordMatcher(words.words, words.patterns, words.allowed)


@functools.lru_cache(maxsize=256)
def list_version(words: WordList) -> str:
    """A short name of a list's content, for the record."""
    return hashlib.sha256(words.model_dump_json().encode()).hexdigest()[:8]


def _forms(folded: str, bare: str) -> Iterator[_Entry]:
    phrase = len(folded.strip("*").split()) > 1
    yield _Entry(bare, phrase)
    if phrase or len(bare) < _LEAST_LETTERS_FOR_ENDINGS or not bare.isalpha() or not bare.isascii():
        return
    stem = bare.removesuffix("e")
    for ending in _ENDINGS:
        form = (stem if ending[0] in "ei" else bare) + ending
        if form not in INNOCENT and form not in COMMON:
            yield _Entry(form)


def _inside_expression(folded: str, bare: str) -> str:
    start = "" if folded.startswith("*") else "(?:^| )"
    end = "" if folded.endswith("*") else "(?: |$)"
    return f"{start}{re.escape(bare)}{end}"


def _plain_letters(folded: str) -> Iterator[str]:
    """A list's own word in plain letters: it may be written with leetspeak as well."""
    for piece in pieces(folded):
        yield piece.readings[0] if piece.readings else piece.raw


def _digit_letters(digits: str) -> str:
    """A single digit between letters stands for one: ``f u c 4``; longer numbers are numbers."""
    return digits.translate(str.maketrans("013457", "oieast")) if len(digits) == 1 else ""


def _was_split(taken: Sequence[str]) -> bool:
    """Whether pieces were one word: single letters, or at least one piece that is no word by itself."""
    if all(len(each) == 1 for each in taken):
        return len(taken) >= 3 or taken[0] in _SYLLABLES
    return not all(each in COMMON for each in taken)


_SYLLABLES = frozenset(map(chr, (*range(0x3041, 0x3097), *range(0xAC00, 0xD7A4))))


def _innocent_places(parts: Sequence[Piece]) -> set[int]:
    places: set[int] = set()
    for index, piece in enumerate(parts):
        for phrase in _PHRASES_BY_FIRST.get(piece.raw, ()):
            if tuple(each.raw for each in parts[index : index + len(phrase)]) == phrase:
                places.update(range(index, index + len(phrase)))
    return places


_PHRASES_BY_FIRST: dict[str, list[tuple[str, ...]]] = {}
for _phrase in INNOCENT_PHRASES:
    _PHRASES_BY_FIRST.setdefault(_phrase[0], []).append(_phrase)


#: Letters of writing without spaces between words: Thai, Lao, Burmese, Khmer, Kana.
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3041-\u30ff]")
_LEAST_UNSPACED = 3


def _runs_on(bare: str) -> bool:
    """Whether a word is found inside others, since nothing stands between words where it is written.

    In Kana two signs are too few to tell a word: くそ is in やくそく.
    """
    if any(map(is_han, bare)):
        return True
    return len(bare) >= _LEAST_UNSPACED and all(map(_UNSPACED.match, bare))
