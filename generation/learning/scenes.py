"""Scenes: icons placed on a canvas so that colours, counts, sizes and places mean something."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

from generation.learning import captions
from generation.learning.captions import COLOUR_WORDS, COLOURS, Captions, Colour, Thing
from generation.learning.concepts import STYLES, Concept, Icon

CANVAS_PX = 64
WHITE = (255, 255, 255)
FULL_PX = 60
HALF_PX = 30
COMPOSED_GROUPS = frozenset({"animals-nature", "food-drink", "travel-places", "activities", "objects"})


class Kind(IntEnum):
    """What a scene teaches."""

    SINGLE = 0
    BACKGROUND = 1
    RECOLOUR = 2
    PLACE = 3
    COUNT = 4
    PAIR = 5


class Split(IntEnum):
    """What a scene may be used for."""

    TRAIN = 0
    HELD_PICTURE = 1
    """A drawing never trained on, of a concept that is trained on in other styles."""
    HELD_CONCEPT = 2
    """A concept never trained on in any style."""
    HELD_SCENE = 3
    """An arrangement never trained on, of drawings that are."""


@dataclass(frozen=True, slots=True)
class Placement:
    """One icon on the canvas; its box may reach over the edge.

    Args:
        icon: Index into the icons.
        left_px: Of its box.
        top_px: Of its box.
        size_px: Side of its box.
        hue_deg: Turn its main colour to this hue, 0 to 360; None leaves it.
    """

    icon: int
    left_px: int
    top_px: int
    size_px: int
    hue_deg: float | None = None

    def enlarged(self, scale: int) -> Placement:
        """The same place on a canvas that is larger by a factor."""
        return replace(self, left_px=self.left_px * scale, top_px=self.top_px * scale, size_px=self.size_px * scale)


@dataclass(frozen=True, slots=True)
class Scene:
    """A picture before it is drawn. All its icons have one style."""

    kind: Kind
    split: Split
    style: int
    background: tuple[int, int, int]
    placements: tuple[Placement, ...]
    captions: Captions


SINGLE_BOX = (2, 2, FULL_PX)
PAIR_BOXES = {
    "left of": ("左边", (1, 17), (33, 17)),
    "to the right of": ("右边", (33, 17), (1, 17)),
    "above": ("上面", (17, 1), (17, 33)),
    "below": ("下面", (17, 33), (17, 1)),
    "next to": ("旁边", (1, 17), (33, 17)),
    "": ("", (1, 17), (33, 17)),
}
COUNT_BOXES = {
    2: ((1, 17), (33, 17)),
    3: ((17, 1), (1, 33), (33, 33)),
    4: ((1, 1), (33, 1), (1, 33), (33, 33)),
}
SMALL_PX = 28
PLACES = {
    "": ("", (18, 18)),
    "in the top left corner": ("左上角", (2, 2)),
    "in the top right corner": ("右上角", (34, 2)),
    "in the bottom left corner": ("左下角", (2, 34)),
    "in the bottom right corner": ("右下角", (34, 34)),
    "at the top": ("上方", (18, 2)),
    "at the bottom": ("下方", (18, 34)),
    "on the left": ("左侧", (2, 18)),
    "on the right": ("右侧", (34, 18)),
}


def split_of(icon: Icon, families_of: Mapping[str, set[str]]) -> Split:
    """Decide by hash what an icon may be used for: 5% of the concepts and 8% of the drawings are held out.

    Args:
        icon: The drawing.
        families_of: The families of styles that draw each concept. A drawing is held out together with those of its
            family, and only where three families or more draw the concept.
    """
    family = STYLES[icon.style].family
    if _percent(icon.code) < 5:
        return Split.HELD_CONCEPT
    if len(families_of[icon.code]) >= 3 and _percent(f"{icon.code} {family}") < 8:
        return Split.HELD_PICTURE
    return Split.TRAIN


def singles(icons: Sequence[Icon], concepts: Mapping[str, Concept]) -> list[Scene]:
    """Every icon alone on white, in the split it belongs to."""
    families_of: dict[str, set[str]] = {}
    for icon in icons:
        families_of.setdefault(icon.code, set()).add(STYLES[icon.style].family)
    return [
        Scene(
            Kind.SINGLE,
            split_of(icon, families_of),
            icon.style,
            WHITE,
            (Placement(index, *SINGLE_BOX),),
            captions.of_single(concepts[icon.code], STYLES[icon.style].word),
        )
        for index, icon in enumerate(icons)
    ]


class Composer:
    """Makes random scenes from training icons only; the same seed makes the same scenes.

    Args:
        icons: All icons.
        concepts: By code.
        trained: Indices of the icons that may be used.
        seed: Of the choice of icons and arrangements.
    """

    def __init__(
        self, icons: Sequence[Icon], concepts: Mapping[str, Concept], trained: Iterable[int], seed: int
    ) -> None:
        self._concepts = concepts
        self._icons = icons
        self._random = random.Random(seed)  # noqa: S311 - a reproducible choice, nothing secret
        self._pool = [index for index in trained if concepts[icons[index].code].group in COMPOSED_GROUPS]
        self._of_style: dict[int, list[int]] = {}
        for index in self._pool:
            self._of_style.setdefault(icons[index].style, []).append(index)

    def compose(self, kind: Kind, count: int) -> list[Scene]:
        """Make scenes of one kind; one in fifty is held out."""
        makers: dict[Kind, Callable[[], Scene]] = {
            Kind.BACKGROUND: self._on_background,
            Kind.RECOLOUR: self._recoloured,
            Kind.PLACE: self._placed,
            Kind.COUNT: self._counted,
            Kind.PAIR: self._paired,
        }
        return [makers[kind]() for _ in range(count)]

    def _on_background(self) -> Scene:
        index = self._random.choice(self._pool)
        colour = self._random.choice(COLOURS)
        rgb = tuple(min(255, max(0, channel + self._random.randint(-12, 12))) for channel in colour.rgb)
        texts = captions.of_background(self._thing(index), colour)
        return self._scene(Kind.BACKGROUND, index, (Placement(index, *SINGLE_BOX),), texts, (rgb[0], rgb[1], rgb[2]))

    def _recoloured(self) -> Scene:
        index, thing = self._one(colour=1.0, small=0.0)
        texts = Captions((thing.english, thing.english.split(" ", 1)[-1]), (thing.chinese,))
        return self._scene(Kind.RECOLOUR, index, (_placement(index, thing, SINGLE_BOX),), texts)

    def _placed(self) -> Scene:
        index, thing = self._one(colour=0.2, small=1.0)
        place = self._random.choice(tuple(PLACES))
        place_zh, (left_px, top_px) = PLACES[place]
        box = (left_px, top_px, SMALL_PX)
        return self._scene(
            Kind.PLACE, index, (_placement(index, thing, box),), captions.of_place(thing, place, place_zh)
        )

    def _counted(self) -> Scene:
        index = self._random.choice(self._pool)
        while captions.is_plural(self._concept(index).names[0]):
            index = self._random.choice(self._pool)
        count = self._random.choice(tuple(COUNT_BOXES))
        placements = tuple(Placement(index, left, top, HALF_PX) for left, top in COUNT_BOXES[count])
        return self._scene(Kind.COUNT, index, placements, captions.of_count(self._thing(index), count))

    def _paired(self) -> Scene:
        first, first_thing = self._one(colour=0.2, small=0.2)
        others = self._of_style[self._icons[first].style]
        second = self._random.choice([index for index in others if self._icons[index].code != self._icons[first].code])
        relation = self._random.choice(tuple(PAIR_BOXES))
        relation_zh, first_corner, second_corner = PAIR_BOXES[relation]
        shrink_px = 8 if first_thing.small else 0
        first_box = (first_corner[0] + shrink_px // 2, first_corner[1] + shrink_px // 2, HALF_PX - shrink_px)
        placements = (_placement(first, first_thing, first_box), Placement(second, *second_corner, HALF_PX))
        texts = captions.of_pair(first_thing, self._thing(second), relation, relation_zh)
        return self._scene(Kind.PAIR, first, placements, texts)

    def _one(self, colour: float, small: float) -> tuple[int, Thing]:
        """Choose an icon and, with the given probabilities, a colour and a small size for it."""
        coloured = self._random.random() < colour
        index = self._random.choice(self._pool)
        while coloured and COLOUR_WORDS.search(" ".join(self._concept(index).names)):
            index = self._random.choice(self._pool)
        paint = self._random.choice([item for item in COLOURS if item.hue_deg is not None]) if coloured else None
        return index, self._thing(index, paint, self._random.random() < small)

    def _thing(self, index: int, colour: Colour | None = None, small: bool = False) -> Thing:
        concept = self._concept(index)
        return Thing(concept, self._random.choice(concept.names), colour, small)

    def _concept(self, index: int) -> Concept:
        return self._concepts[self._icons[index].code]

    def _scene(
        self,
        kind: Kind,
        index: int,
        placements: tuple[Placement, ...],
        texts: Captions,
        background: tuple[int, int, int] = WHITE,
    ) -> Scene:
        split = Split.HELD_SCENE if _percent(" ".join(texts.english)) < 2 else Split.TRAIN
        return Scene(kind, split, self._icons[index].style, background, placements, texts)


def _placement(index: int, thing: Thing, box: tuple[int, int, int]) -> Placement:
    return Placement(index, *box, hue_deg=thing.colour.hue_deg if thing.colour else None)


def _percent(text: str) -> int:
    """Hash a text to 0..99, the same on every machine and in every run."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % 100
