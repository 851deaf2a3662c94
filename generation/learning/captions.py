"""Captions in English and Chinese: what a person would type to get a picture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import islice

from generation.learning.concepts import Concept

COMMA_ZH = "\uff0c"
NUMBERS = {2: ("two", "两"), 3: ("three", "三"), 4: ("four", "四")}
IRREGULAR_PLURALS = {
    "mouse": "mice",
    "goose": "geese",
    "ox": "oxen",
    "knife": "knives",
    "leaf": "leaves",
    "wolf": "wolves",
    "loaf": "loaves",
    "scarf": "scarves",
    "tooth": "teeth",
    "foot": "feet",
    "fish": "fish",
    "sheep": "sheep",
    "deer": "deer",
    "shrimp": "shrimp",
    "squid": "squid",
    "bison": "bison",
    "moose": "moose",
}
# What follows the thing itself in a name: "bottle with popping cork", "glass of milk".
TAIL = re.compile(r" (with|of|in|on|without|showing|over|at|and|behind) ")
# Names that end in s and are one thing.
SINGULAR_S = re.compile(r"(ss|us|is|bus)$")


@dataclass(frozen=True, slots=True)
class Colour:
    """A colour by name.

    Args:
        name: English.
        name_zh: Chinese, without 色的.
        rgb: As a background, 0 to 255 each.
        hue_deg: As the colour of a thing, 0 to 360; None where hue alone does not make it.
    """

    name: str
    name_zh: str
    rgb: tuple[int, int, int]
    hue_deg: float | None


COLOURS = (
    Colour("red", "红色", (222, 62, 58), 0.0),
    Colour("orange", "橙色", (245, 150, 55), 28.0),
    Colour("yellow", "黄色", (250, 215, 80), 50.0),
    Colour("green", "绿色", (88, 178, 92), 125.0),
    Colour("blue", "蓝色", (70, 130, 220), 215.0),
    Colour("purple", "紫色", (140, 90, 200), 275.0),
    Colour("pink", "粉色", (248, 160, 195), 330.0),
    Colour("brown", "棕色", (140, 95, 65), None),
    Colour("black", "黑色", (32, 32, 36), None),
    Colour("grey", "灰色", (150, 152, 156), None),
)
COLOUR_WORDS = re.compile(r"\b(red|orange|yellow|green|blue|purple|pink|brown|black|gr[ae]y|white|golden)\b")


@dataclass(frozen=True, slots=True)
class Captions:
    """Texts that all describe one picture."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Thing:
    """A concept as it appears in a scene.

    Args:
        concept: What it is.
        name: One of its English names.
        colour: The colour it was given, if any.
        small: Whether it is drawn small on purpose.
    """

    concept: Concept
    name: str
    colour: Colour | None = None
    small: bool = False

    @property
    def english(self) -> str:
        """For example ``a small blue car``."""
        words = (["small"] if self.small else []) + ([self.colour.name] if self.colour else []) + [self.name]
        return with_article(" ".join(words))

    @property
    def chinese(self) -> str:
        """For example ``小蓝色的汽车``."""
        colour = f"{self.colour.name_zh}的" if self.colour else ""
        return f"{'小' if self.small else ''}{colour}{self.concept.names_zh[0]}"


def of_single(concept: Concept, style_word: str) -> Captions:
    """Captions of one icon alone on white."""
    names = concept.names
    tags = [tag for tag in concept.tags if tag not in names[0]]
    english = [*names, *(with_article(name) for name in names), f"{names[0]}, {style_word} style"]
    english += [f"{names[0]}, {', '.join(pair)}" for pair in islice(zip(tags[::2], tags[1::2], strict=False), 2)]
    label = concept.names_zh[0]
    tags_zh = [tag for tag in concept.tags_zh if tag not in label and len(tag) > 1]
    chinese = [label, f"一个{label}", *(f"{label}{COMMA_ZH}{tag}" for tag in tags_zh[:3])]
    return Captions(tuple(dict.fromkeys(english)), tuple(dict.fromkeys(chinese)))


def of_background(thing: Thing, colour: Colour) -> Captions:
    """Captions of one thing on a plain coloured background."""
    return Captions(
        (f"{thing.english} on a {colour.name} background", f"{thing.name}, {colour.name} background"),
        (f"{colour.name_zh}背景上的{thing.chinese}", f"{thing.chinese}{COMMA_ZH}{colour.name_zh}背景"),
    )


def of_count(thing: Thing, count: int) -> Captions:
    """Captions of two to four of the same thing."""
    number, number_zh = NUMBERS[count]
    measure = "只" if thing.concept.subgroup.startswith("animal") else "个"
    return Captions((f"{number} {plural(thing.name)}",), (f"{number_zh}{measure}{thing.chinese}",))


def of_place(thing: Thing, place: str, place_zh: str) -> Captions:
    """Captions of a small thing somewhere on the canvas; an empty place is the middle."""
    english = (f"{thing.english} {place}".strip(),)
    return Captions(english, (f"{place_zh}的{thing.chinese}" if place_zh else thing.chinese,))


def of_pair(first: Thing, second: Thing, relation: str, relation_zh: str) -> Captions:
    """Captions of two things: the first is ``relation`` the second; an empty relation names them only."""
    if not relation:
        return Captions((f"{first.english} and {second.english}",), (f"{first.chinese}和{second.chinese}",))
    return Captions(
        (f"{first.english} {relation} {second.english}",), (f"{first.chinese}在{second.chinese}{relation_zh}",)
    )


def with_article(phrase: str) -> str:
    """Put ``a`` or ``an`` before a noun phrase unless it is a plural."""
    if is_plural(phrase):
        return phrase
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def is_plural(phrase: str) -> bool:
    """Whether a noun phrase names several things, judged by its last word before any tail."""
    head = TAIL.split(phrase, maxsplit=1)[0]
    return head.endswith("s") and not SINGULAR_S.search(head)


def plural(phrase: str) -> str:
    """Put a noun phrase into the plural: ``glass of milk`` becomes ``glasses of milk``."""
    match = TAIL.search(phrase)
    head, tail = (phrase[: match.start()], phrase[match.start() :]) if match else (phrase, "")
    before, _, noun = head.rpartition(" ")
    return f"{before} {_plural_noun(noun)}{tail}".strip()


def _plural_noun(noun: str) -> str:
    if noun in IRREGULAR_PLURALS:
        return IRREGULAR_PLURALS[noun]
    if re.search(r"(s|x|z|ch|sh)$", noun):
        return noun + "es"
    if re.search(r"[^aeiou]y$", noun):
        return noun[:-1] + "ies"
    return noun + "s"
