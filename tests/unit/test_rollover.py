"""Where an answer goes on in another message: nothing is lost, and no block is torn apart."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from markdown_it import MarkdownIt

from bots.delivery.content import View
from bots.delivery.page import Page
from bots.delivery.rollover import Cut, Life, find
from bots.delivery.splitting import split
from tests.unit.test_splitting import documents
from workers.client import Restarted, TextDelta

LIMIT = 12_000
BLOCKS = (
    "Intro.\n\n```py\na = 1\n\nb = 2\n```\n\n- one\n- two\n\n- three\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n"
    "The end, really.\n"
)


def place(text: str, life: Life = Life.OVER, shown_chars: int = 0) -> int | None:
    parts = split(text, LIMIT)
    return find(text, parts, life, shown_chars) if parts else None


def kinds(text: str) -> list[str]:
    return [token.type for token in MarkdownIt("commonmark").enable("table").parse(text) if token.level == 0]


@settings(deadline=None)
@given(documents)
def test_a_parser_reads_the_same_blocks_in_both_halves(text):
    at = place(text)
    if at is not None:
        assert text[:at].strip()
        assert text[at:].strip()
        halves = kinds(text[:at]), kinds(text[at:])
        within_a_paragraph = halves[0][-1] == "paragraph_close" and text[:at].rstrip(" ") == text[:at].rstrip()
        assert halves[0] + halves[1] == kinds(text) or within_a_paragraph


def test_every_place_of_a_growing_text_is_between_blocks():
    allowed = {BLOCKS.index(start) for start in ("```py", "- one", "| a", "The end")}
    found = {place(BLOCKS[:length]) for length in range(len(BLOCKS))}
    assert found - {None} == allowed


@pytest.mark.parametrize(
    "text",
    [
        "```\n" + "code. More\n\n" * 20,
        "- item. Another\n" * 20,
        "| a. B | c |\n" * 20,
        "1. First\n\n   Goes on. Here\n\n2. Second thing that is there\n",
        "# A heading\n\nIts first words",
        "As follows:\n\n- an item of some length\n",
        "**Bold. And more",
        "one two three four five six",
        "> Quoted. Words\n> and more",
    ],
)
def test_where_no_place_is_good_there_is_none(text):
    assert place(text) is None


def test_a_sentence_is_the_last_resort():
    assert place("First one. Second one", Life.AGING) is None
    assert place("First one. Second one") == len("First one. ")
    assert place("你好。再见") == len("你好。")


def test_while_a_stream_ages_only_what_is_not_shown_counts():
    text = "First paragraph.\n\nSecond paragraph, growing"
    assert place(text, Life.AGING, len("First")) == len("First paragraph.\n\n")
    assert place(text, Life.AGING, len("First paragraph.\n\nSec")) is None
    assert place(text, Life.OVER, len("First paragraph.\n\nSec")) == len("First paragraph.\n\n")
    assert place(text, Life.FRESH) is None


def page(cuts: list[Cut] | None = None) -> Page:
    return Page("slack-T1__j", LIMIT, len, cuts=cuts or ())


def test_another_process_divides_an_answer_alike():
    first, text = page(), "First paragraph.\n\nSecond paragraph, growing"
    first.take(TextDelta(text))
    cuts = first.divide(Life.OVER, View(text))
    assert cuts
    assert first.divide(Life.OVER, View("Second")) is None
    second = page(cuts)
    for character in text:
        second.take(TextDelta(character))
    assert first.views() == second.views()
    assert [view.text for view in second.views()] == ["First paragraph.", "Second paragraph, growing"]
    assert [view.complete for view in second.views()] == [True, False]
    assert [len(view.buttons) for view in second.views()] == [0, 1], "the stop button is under the last one"


def test_an_answer_that_begins_anew_is_not_cut_at_the_old_places():
    text = "First paragraph.\n\nSecond paragraph, growing"
    begun = page([Cut.of(text, 18)])
    begun.take(TextDelta(text))
    begun.take(Restarted())
    begun.take(TextDelta("Another answer, which is a long one."))
    assert [view.text for view in begun.views()] == ["Another answer, which is a long one."]


def test_what_is_said_about_the_end_is_no_code():
    begun = page()
    begun.take(TextDelta("Look:\n\n```py\na = 1\nb = "))
    assert [view.text for view in begun.notice("Stopped.")] == ["Look:\n\n```py\na = 1\nb = \n```\n\nStopped."]


def test_what_is_said_about_the_end_stands_below_the_last_message():
    text = "First paragraph.\n\nSecond paragraph, growing"
    begun = page([Cut.of(text, 18)])
    begun.take(TextDelta(text))
    assert [view.text for view in begun.notice("Lost.")] == ["First paragraph.", "Second paragraph, growing\n\nLost."]
