"""Blocked Chinese words in their evasive spellings: by sound, in pinyin, with split characters, with things between.

Sounds come from pypinyin, loaded when a list has Chinese words and a text may hold them.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from generation.moderation.innocent import COMMON, read_list
from generation.moderation.policy import WordList
from generation.moderation.spelling import Folded, fold, is_han

_HAN = "\u3400-\u9fff\U00020000-\U0003134f"
#: Strokes and radicals that can be half of a character.
_PARTS = "\u2e80-\u2fdf\u31c0-\u31ef"
_UNIT = re.compile(f"[{_HAN}{_PARTS}]|[^\\W\\d_{_HAN}{_PARTS}]+")

Units = list["_Unit"]


@dataclass(frozen=True, slots=True)
class _Unit:
    """A character, or a run of Latin letters.

    Args:
        text: As it stands.
        start: In the folded text.
        end: One past it.
    """

    text: str
    start: int
    end: int

    @property
    def han(self) -> bool:
        """Whether it is a Chinese character."""
        return is_han(self.text[0])


@dataclass(frozen=True, slots=True)
class _Word:
    """A blocked word: its characters, and their sounds without tones."""

    text: str
    syllables: tuple[str, ...]
    tones: tuple[str, ...]


class ChineseMatcher:
    """Finds a list's Chinese words.

    Args:
        words: Those with other letters are left to ``words``.
        homophones: Also find words that only sound like them.
    """

    def __init__(self, words: Iterable[str], *, homophones: bool = True) -> None:
        self._homophones = homophones
        self._texts = sorted({text for word in words if (text := _han_only(fold(word).text))})
        self._by_first: dict[str, list[str]] = {}
        for text in self._texts:
            self._by_first.setdefault(text[0], []).append(text)
        self._sounds: dict[str, list[_Word]] | None = None
        self._prefixes: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._texts)

    def find(self, folded: Folded) -> Iterator[tuple[int, int]]:
        """Start and end of each match in the folded text."""
        if not self._texts:
            return
        units = _units(folded.text)
        if any(unit.han for unit in units):
            yield from self._written(units)
            joined = _joined_halves(units)
            if len(joined) < len(units):
                yield from self._written(joined)
            units = joined
        yield from self._sounding(units)

    def _written(self, units: Units) -> Iterator[tuple[int, int]]:
        units = [unit for unit in units if len(unit.text) > 1 or unit.han]  # a single letter between is no word
        characters = [unit.text if unit.han else "" for unit in units]
        for index, character in enumerate(characters):
            for text in self._by_first.get(character, ()):
                end = index + len(text)
                if characters[index:end] == list(text) and not _across(units, index, end):
                    yield units[index].start, units[end - 1].end

    def _sounding(self, units: Units) -> Iterator[tuple[int, int]]:
        if self._sounds is None:
            self._sounds = self._listen()
        sounds = [syllable(unit.text) if unit.han else unit.text for unit in units]
        for index in range(len(units)):
            said = ""
            for end in range(index, len(units)):
                said += sounds[end]
                if said not in self._prefixes:
                    break
                heard = units[index : end + 1]
                if _leans_out(units, index, end + 1):
                    continue
                if any(self._same(word, heard) for word in self._sounds.get(said, ())):
                    yield units[index].start, units[end].end

    def _listen(self) -> dict[str, list[_Word]]:
        sounds: dict[str, list[_Word]] = {}
        for text in self._texts:
            if len(text) < 2:
                continue
            word = _Word(text, tuple(map(syllable, text)), tuple(map(tone, text)))
            said = "".join(word.syllables)
            sounds.setdefault(said, []).append(word)
            self._prefixes.update(said[:end] for end in range(1, len(said) + 1))
        return sounds

    def _same(self, word: _Word, heard: Sequence[_Unit]) -> bool:
        """Whether a spelling stands for a word and not for another one that happens to sound alike."""
        latin = [unit.text for unit in heard if not unit.han]
        if len(latin) == len(heard):
            letters = "".join(latin)
            return len(letters) >= 4 and letters not in COMMON and not all(each in COMMON for each in latin)
        if latin:
            return True
        text = "".join(unit.text for unit in heard)
        if text == word.text or len(text) != len(word.text):
            return False
        if not self._homophones or is_phrase(text):
            return False
        if len(text) >= 3:
            return True
        same = sum(here == there for here, there in zip(text, word.text, strict=True))
        return same >= 1 and tuple(map(tone, text)) == word.tones


@functools.lru_cache(maxsize=256)
def chinese_matcher(words: WordList, homophones: bool) -> ChineseMatcher:
    """The compiled form of a list, made once for all requests that carry it."""
    return ChineseMatcher(words.words, homophones=homophones)


@functools.lru_cache(maxsize=32_768)
def syllable(character: str) -> str:
    """The commonest sound of a character, without its tone."""
    from pypinyin import lazy_pinyin  # a third of a second that only Chinese lists cost

    return str(lazy_pinyin(character, errors="default")[0]) if is_han(character) else character


@functools.lru_cache(maxsize=32_768)
def tone(character: str) -> str:
    """The commonest sound of a character with its tone."""
    from pypinyin import Style, lazy_pinyin

    return str(lazy_pinyin(character, style=Style.TONE3, errors="default")[0])


def is_phrase(text: str) -> bool:
    """Whether a text is a word of the dictionary: then it means itself and not what it sounds like."""
    from pypinyin.phrases_dict import phrases_dict

    return text in phrases_dict


@functools.cache
def _halves() -> dict[tuple[str, str], str]:
    return {(entry[1], entry[2]): entry[0] for entry in read_list("halves.txt")}


def _across(units: Units, start: int, end: int) -> bool:
    """Whether characters only stand across two words, as in 路口交通: one ends among them and the next begins there."""
    for cut in range(start + 1, end):
        before, after = units[cut - 2 : cut], units[cut : cut + 2]
        if (cut - 2 < start and cut + 2 > end) and _is_word(before) and _is_word(after):
            return True
    return False


def _leans_out(units: Units, start: int, end: int) -> bool:
    """Whether what only sounds like a word begins or ends within a common one, as in 火箭人."""
    return _is_word(units[max(0, start - 1) : start + 1]) or _is_word(units[end - 1 : end + 1])


def _is_word(units: Sequence[_Unit]) -> bool:
    """Whether two neighbouring characters are a common word."""
    return len(units) == 2 and units[0].end == units[1].start and f"{units[0].text}{units[1].text}" in _common_words()


@functools.cache
def _common_words() -> frozenset[str]:
    running = "".join(read_list("chinese_words.txt"))
    return frozenset(running[at : at + 2] for at in range(0, len(running), 2))


def _han_only(text: str) -> str:
    """The characters of a word that is Chinese; empty for one that has other letters as well, such as Kana."""
    letters = [character for character in text if character.isalpha()]
    return "".join(letters) if all(map(is_han, letters)) else ""


def _units(text: str) -> Units:
    """Characters and Latin runs in order; what stands between them is left out."""
    return [_Unit(match[0], match.start(), match.end()) for match in _UNIT.finditer(text)]


def _joined_halves(units: Units) -> Units:
    joined: Units = []
    at = 0
    while at < len(units):
        pair = (units[at].text, units[at + 1].text) if at + 1 < len(units) else None
        whole = _halves().get(pair) if pair else None
        if whole:
            joined.append(_Unit(whole, units[at].start, units[at + 1].end))
            at += 2
        else:
            joined.append(units[at])
            at += 1
    return joined
