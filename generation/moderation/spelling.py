"""Text as a reader sees it, whatever characters it was written with: the ground on which words are compared.

Compatibility forms (Unicode NFKC), upper case, accents, invisible characters and look-alikes of other scripts (Unicode
Technical Standard 39) are folded away; where each character came from is kept, so that findings can be masked.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from dataclasses import dataclass

#: What a digit or symbol stands for in a disguised word. 1 and | may be either of two letters.
_LEET = str.maketrans("013456789@$!|+€£#", "oieasgtbgasiiteeh")
_LEET_AS_L = str.maketrans("1|!", "lll")
_MARKS = "!|+*#"
_DISGUISED = re.compile(r"[0-9@$!|+€£#]")
_PIECE = re.compile(r"(?:[^\W_]|[@$!|+*#€£])+")
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
    folded = []
    for each in unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", character).casefold()):
        category = unicodedata.category(each)
        if category in ("Cf", "Mn", "Me", "Cn", "Co", "Cs") or each in "\u115f\u1160\u3164\uffa0\u2800":
            continue  # nothing that is seen, and halves of surrogate pairs
        if category in ("Zs", "Zl", "Zp"):
            folded.append(" ")
        else:
            folded.append(each if each.isascii() else look_alikes().get(each, each))
    return "".join(folded)


def _boxed_letter(code: int) -> str:
    """Letters in circles, boxes and flags, which have no compatibility form."""
    for first in (0x1F150, 0x1F170, 0x1F1E6):
        if first <= code < first + 26:
            return chr(ord("a") + code - first)
    return ""


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
    return tuple(told)


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
