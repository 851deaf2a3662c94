"""Text as a reader sees it, whatever characters it was written with: the ground on which words are compared.

Compatibility forms (Unicode NFKC), upper case, accents, invisible characters and look-alikes of other scripts (Unicode
Technical Standard 39) are folded away; where each character came from is kept, so that findings can be masked.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

from generation.moderation.innocent import COMMON

#: What a digit or symbol stands for in a disguised word. 1 and | may be either of two letters.
_LEET = str.maketrans("013456789@$!|+€£#¢©", "oieasgtbgasiiteehcc")
_LEET_AS_L = str.maketrans("1|!", "lll")
_MARKS = "!|+*#"
_DISGUISED = re.compile(r"[0-9@$!|+€£#¢©]")
#: What only lengthens Arabic words, fillers of Hangul, and a blank of Braille.
_UNSEEN = "\u0640\u115f\u1160\u3164\uffa0\u2800"
_INDIC_AND_THAI = r"\u0900-\u0963\u0966-\u0e4f\u0e80-\u0fff\u1000-\u109f\u1780-\u17d3"
SPOKEN_MARKS = re.compile(f"[{_INDIC_AND_THAI}]")
_PIECE = re.compile(rf"(?:[^\W_]|[@$!|+*#€£¢©{_INDIC_AND_THAI}])+")
#: Symbols that part letters as well as they stand for some.
_PARTING = re.compile(r"[|+*#!]+")
_NO_LETTER = "0123456789@$!|+*#€£¢©"
_DOUBLED = re.compile(r"(.)\1+", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Folded:
    """A text in folded form.

    Args:
        text: The folded characters.
        origin: For each of them the index of the character it came from; None if nothing moved.
        length: Characters of the original.
    """

    text: str
    origin: tuple[int, ...] | None
    length: int

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Where in the original a part of the folded text is."""
        if self.origin is None:
            return start, end
        if self.origin[start] > self.origin[end - 1]:  # shown backwards
            return self.origin[end - 1], self.origin[start] + 1
        last = self.origin[end] if end < len(self.origin) else self.length
        return self.origin[start], max(last, self.origin[end - 1] + 1)


def fold(text: str) -> Folded:
    """Fold a text; takes time linear in its length."""
    if text.isascii():
        return Folded(text.lower(), None, len(text))
    pieces: list[str] = []
    origin: list[int] = []
    for index, character in enumerate(text):
        folded = _fold_character(character)
        pieces.append(folded)
        origin += [index] * len(folded)
    return Folded("".join(pieces), tuple(origin), len(text))


@functools.lru_cache(maxsize=65_536)
def _fold_character(character: str) -> str:
    if character.isascii():
        return character.lower()
    if letter := _boxed_letter(ord(character)):
        return letter
    composed = unicodedata.normalize("NFKC", character).casefold()
    if all(map(_is_kana, composed)):
        return "".join(map(_hiragana, composed))
    return "".join(map(_seen, unicodedata.normalize("NFKD", composed)))


def _seen(character: str) -> str:
    """What a reader sees of one decomposed character."""
    category = unicodedata.category(character)
    if category in ("Cf", "Cn", "Co", "Cs") or character in _UNSEEN:
        return ""  # nothing that is seen, and halves of surrogate pairs
    if category in ("Mn", "Me"):
        # In Indic and Thai writing a mark is a vowel: without it another word is left.
        return character if SPOKEN_MARKS.match(character) else ""
    if category in ("Zs", "Zl", "Zp"):
        return " "
    if character.isascii():
        return character
    return _DRAWN.get(character) or look_alikes().get(character) or _drawn_letter(character) or character


def _is_kana(character: str) -> bool:
    return "\u3041" <= character <= "\u3096" or "\u30a1" <= character <= "\u30f6"


def _hiragana(character: str) -> str:
    """Katakana as Hiragana: one sound, one sign."""
    return chr(ord(character) - 0x60) if character >= "\u30a1" else character


def _boxed_letter(code: int) -> str:
    """Letters in circles, boxes and flags, which have no compatibility form."""
    for first in (0x1F150, 0x1F170, 0x1F1E6):
        if first <= code < first + 26:
            return chr(ord("a") + code - first)
    return ""


#: Drawn like a letter, whatever tables of look-alikes say.
_DRAWN = {"ғ": "f", "µ": "u", "μ": "u", "ꜰ": "f", "ꜱ": "s"}
_DRAWN_NAME = re.compile(
    r"LATIN (?:LETTER SMALL CAPITAL ([A-Z])|(?:SMALL|CAPITAL) LETTER ([A-Z]) WITH (?:HOOK|TAIL|SWASH TAIL))"
)


def _drawn_letter(character: str) -> str:
    """Small capitals, and letters with a hook."""
    named = _DRAWN_NAME.fullmatch(unicodedata.name(character, ""))
    return (named[1] or named[2]).lower() if named else ""


_OVERRIDE = re.compile("[\u202d\u202e]([^\u202c\u2028\u2029\n]*)")


def as_shown(text: str) -> Folded | None:
    """A text whose direction is forced, folded in the order in which it is seen; None if there is nothing forced."""
    if "\u202e" not in text:
        return None
    order = list(range(len(text)))
    for match in _OVERRIDE.finditer(text):
        if match[0][0] == "\u202e":
            order[match.start(1) : match.end(1)] = reversed(order[match.start(1) : match.end(1)])
    folded = [(_fold_character(text[index]), index) for index in order]
    origin = tuple(index for letters, index in folded for _ in letters)
    return Folded("".join(letters for letters, _ in folded), origin, len(text))


def plain(text: str) -> Folded:
    """A text in compatibility forms and without invisible characters, otherwise as it was written."""
    if text.isascii():
        return Folded(text, None, len(text))
    kept = [
        (unicodedata.normalize("NFKC", character), index)
        for index, character in enumerate(text)
        if unicodedata.category(character) not in ("Cf", "Cs")
    ]
    origin = tuple(index for letters, index in kept for _ in letters)
    return Folded("".join(letters for letters, _ in kept), origin, len(text))


@functools.cache
def look_alikes() -> dict[str, str]:
    """Letters of other scripts that look like an ASCII letter, in lower case.

    Source: Unicode Technical Standard 39, confusables.txt.
    """
    from confusable_homoglyphs import confusables  # reads a table of a megabyte; ASCII texts never need it

    table: dict[str, str] = {}
    for character, others in confusables.confusables_data.items():
        if len(character) != 1 or character.isascii() or not character.isalpha():
            continue
        for other in others:
            letter = other["c"]
            if len(letter) == 1 and letter.isascii() and letter.isalpha():
                table.setdefault(unicodedata.normalize("NFKC", character).casefold(), letter.lower())
    # What normalisation makes plain stands for itself: a long s looks like an f and is an s.
    return {character: letter for character, letter in table.items() if len(character) == 1 and not character.isascii()}


@dataclass(frozen=True, slots=True)
class Piece:
    """A run of letters, digits and the symbols that stand for letters.

    Args:
        start: Its first character in the folded text.
        end: One past its last.
        readings: What it may say in plain letters, the likeliest first; empty if it says nothing.
        raw: As it stands.
    """

    start: int
    end: int
    readings: tuple[str, ...]
    raw: str


def pieces(folded: str) -> list[Piece]:
    """The pieces of a folded text, in order."""
    found = []
    for match in _PIECE.finditer(folded):
        raw = match[0]
        found.append(Piece(match.start(), match.end(), (raw,) if raw.isalpha() else readings(raw), raw))
    return found


@functools.lru_cache(maxsize=8192)
def readings(raw: str) -> tuple[str, ...]:
    """What a piece with digits and symbols may say; at least one real letter makes a word."""
    if not any(character.isalpha() for character in raw):
        return ()
    told: dict[str, None] = {}
    for form in (raw.strip(_MARKS), raw.strip("*|#")):
        if _DISGUISED.search(form):
            told[form.translate(_LEET)] = None
            told[form.translate(_LEET_AS_L).translate(_LEET)] = None
        told[form] = None
    told[raw.strip(_NO_LETTER)] = None  # a word with a number at its end
    told |= dict.fromkeys(_parted(raw))
    return tuple(told)


def _parted(raw: str) -> list[str]:
    """A word whose letters are parted by symbols (``f|u|c|k``), or those of a script without leetspeak by anything."""
    found = []
    letters = [part for part in _PARTING.split(raw) if part]
    if len(letters) > 1 and not all(part in COMMON for part in letters):
        found.append("".join(letters))
    bare = "".join(character for character in raw if character not in _NO_LETTER)
    if not any(character.isascii() for character in bare):
        found.append(bare)
    return found


@functools.lru_cache(maxsize=16_384)
def squeezed(word: str) -> str:
    """A word with each run of one letter shortened to one."""
    return _DOUBLED.sub(r"\1", word)


def runs(word: str) -> tuple[int, ...]:
    """Lengths of a word's runs of one letter."""
    lengths: list[int] = []
    before = ""
    for letter in word:
        if letter == before:
            lengths[-1] += 1
        else:
            lengths.append(1)
        before = letter
    return tuple(lengths)


def stretches(written: str, word: str) -> bool:
    """Whether a spelling is a word with letters repeated, given that both are the same when squeezed.

    ``good`` does not stretch ``god``: in a short word one doubled letter makes another word.
    """
    if written == word:
        return True
    patient = len(word) >= 4
    pairs = zip(runs(written), runs(word), strict=True)
    return all(there == wanted or (there > wanted and (there >= 3 or patient)) for there, wanted in pairs)


def is_han(character: str) -> bool:
    """Whether a character is a Chinese one."""
    return "\u3400" <= character <= "\u9fff" or "\U00020000" <= character <= "\U0003134f"
