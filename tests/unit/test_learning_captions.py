from __future__ import annotations

import pytest

from generation.learning import captions
from generation.learning.captions import COLOURS, Thing
from generation.learning.concepts import Concept

CAR = Concept("1F697", ("automobile", "car"), ("driving", "vehicle"), ("汽车",), ("车辆", "车"), "travel-places", "x")
CAT = Concept("1F408", ("cat",), ("pet",), ("猫",), ("宠物",), "animals-nature", "animal-mammal")
BLUE = next(colour for colour in COLOURS if colour.name == "blue")


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("cat", "cats"),
        ("red fox", "red foxes"),
        ("strawberry", "strawberries"),
        ("glass of milk", "glasses of milk"),
        ("bottle with popping cork", "bottles with popping cork"),
        ("computer mouse", "computer mice"),
        ("toy", "toys"),
        ("bus", "buses"),
    ],
)
def test_plural(phrase: str, expected: str) -> None:
    assert captions.plural(phrase) == expected


@pytest.mark.parametrize(
    ("phrase", "expected"),
    [
        ("cat", "a cat"),
        ("owl", "an owl"),
        ("grapes", "grapes"),
        ("bus", "a bus"),
        ("glasses", "glasses"),
        ("glass of milk", "a glass of milk"),
    ],
)
def test_article(phrase: str, expected: str) -> None:
    assert captions.with_article(phrase) == expected


def test_a_thing_with_colour_and_size_reads_in_both_languages() -> None:
    thing = Thing(CAR, "car", BLUE, small=True)
    assert thing.english == "a small blue car"
    assert thing.chinese == "小蓝色的汽车"


def test_single_captions_have_every_name_the_style_and_no_repetition() -> None:
    texts = captions.of_single(CAR, "flat")
    assert {"automobile", "car", "an automobile", "a car", "automobile, flat style"} <= set(texts.english)
    assert "汽车" in texts.chinese
    assert len(set(texts.english)) == len(texts.english)
    assert len(set(texts.chinese)) == len(texts.chinese)


def test_scene_captions() -> None:
    cat, car = Thing(CAT, "cat"), Thing(CAR, "car")
    assert captions.of_count(cat, 2) == captions.Captions(("two cats",), ("两只猫",))
    assert captions.of_count(car, 3) == captions.Captions(("three cars",), ("三个汽车",))
    assert captions.of_pair(cat, car, "left of", "左边") == captions.Captions(
        ("a cat left of a car",), ("猫在汽车左边",)
    )
    assert captions.of_pair(cat, car, "", "").english == ("a cat and a car",)
    assert captions.of_background(cat, BLUE).english[0] == "a cat on a blue background"
    assert captions.of_place(cat, "at the top", "上方") == captions.Captions(("a cat at the top",), ("上方的猫",))
