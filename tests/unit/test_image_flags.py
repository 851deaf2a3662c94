"""Flags behind ``/imagine``: read as meant, and refused with what is allowed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.image_flags import FLAGS, FlagError, ParsedPrompt, describe, parse, render
from workers.contract import ImageOptions

WORDS = st.text(st.characters(categories=("L", "N")), min_size=1, max_size=8)
TEXTS = st.lists(WORDS, min_size=1, max_size=6).map(" ".join)
OPTIONS = st.builds(
    ImageOptions,
    n=st.integers(1, 8),
    aspect_ratio=st.sampled_from(["1:1", "16:9", "9:16", "4:1", "1:4", "2.39:1"]),
    seed=st.none() | st.integers(0, 2**63 - 1),
    num_inference_steps=st.integers(0, 200),
    style=st.none() | TEXTS,
    guidance_scale=st.none() | st.integers(0, 300).map(lambda tenths: tenths / 10),
)


def test_everything_at_once():
    read = parse(
        'a red fox --ar 16:9 --n 4 --seed 7 --steps 20 --style "oil paint" --guidance 6.5 --negative text, blur'
    )
    assert read == ParsedPrompt(
        "a red fox",
        "text, blur",
        ImageOptions(n=4, aspect_ratio="16:9", seed=7, num_inference_steps=20, style="oil paint", guidance_scale=6.5),
    )


@pytest.mark.parametrize("text", ["--n 2 a fox", "a --n 2 fox", "a fox --n=2", "a fox \u2014n 2", "a fox --N 2"])
def test_a_flag_may_stand_anywhere_and_be_written_as_keyboards_do(text):
    assert parse(text) == ParsedPrompt("a fox", "", ImageOptions(n=2))


@pytest.mark.parametrize("text", ["a state--of--the--art fox", "a fox -- or two", "a fox -n 2", "1 - 2 -- 3"])
def test_dashes_that_are_no_flags_stay_in_the_prompt(text):
    assert parse(text) == ParsedPrompt(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a fox --n 9", r"--n does not take 9; it takes a whole number of pictures from 1 to 8"),
        ("a fox --n two", r"--n does not take two"),
        ("a fox --n", r"--n needs a value"),
        ("a fox --n --seed 3", r"--n needs a value"),
        ("a fox --ar 16x9", r"--ar does not take 16x9; it takes width:height"),
        ("a fox --ar 9:1", r"--ar does not take 9:1"),
        ("a fox --ar 0:0", r"--ar does not take 0:0"),
        ("a fox --seed -1", r"--seed does not take -1"),
        ("a fox --seed 9223372036854775808", r"--seed does not take"),
        ("a fox --steps 0", r"--steps does not take 0"),
        ("a fox --guidance nan", r"--guidance does not take nan"),
        ("a fox --sed 4", r"no flag --sed; did you mean --seed\?.*--ar, --n"),
        ("a fox --frobnicate", r"no flag --frobnicate\. Flags: --ar"),
        ("a fox --n 1 --n 2", r"--n is given twice"),
        ("--n 4", r"Say what the picture should show"),
        ("", r"Say what the picture should show"),
        ("x" * 10_001, r"longer than 10000"),
    ],
)
def test_a_wrong_flag_is_told_with_what_is_allowed(text, told):
    with pytest.raises(FlagError, match=told):
        parse(text)


@given(TEXTS, st.just("") | TEXTS, OPTIONS)
def test_what_is_written_is_read_again(prompt, negative, options):
    asked = ParsedPrompt(prompt, negative, options)
    assert parse(render(asked)) == asked


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused_with_a_sentence(text):
    with contextlib.suppress(FlagError):
        read = parse(text)
        assert read.prompt
        assert parse(read.prompt).prompt == read.prompt


def test_every_flag_is_described():
    assert all(f"--{name}: " in describe() for name in FLAGS)
