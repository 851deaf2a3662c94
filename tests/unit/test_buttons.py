from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.delivery.buttons import MAX_ID_CHARS, Button, parse
from bots.delivery.page import Page
from workers.client import Ended, TextDelta
from workers.contract import Event, Failure, ReplyTo

JOB = "discord-1234567890123456789__i-9876543210987654321"
REPLY = ReplyTo(front_end="t")


@pytest.mark.parametrize(
    "button", [Button("stop", JOB), Button("vary", JOB, 0), Button("upscale", JOB, 3), Button("delete", "t__1")]
)
def test_an_id_says_everything(button):
    assert len(button.id) <= MAX_ID_CHARS
    assert parse(button.id) == button


@pytest.mark.parametrize(
    "junk",
    [
        "",
        "p:",
        "p:stop",
        "p:stop:",
        "p:burn:t__1",
        "q:stop:t__1",
        "p:stop:t__1:",
        "p:stop:t__1:12",
        "p:stop:t__1:-1",
        "p:stop:t__1:1:2",
        "p:stop:t 1",
        "p:stop:t__1\n",
        "p:stop:t__1:²",
        "p:stop:" + "x" * 200,
    ],
)
def test_junk_is_no_button(junk):
    assert parse(junk) is None


@given(st.text(max_size=150))
def test_no_text_breaks_the_parser(text):
    button = parse("p:" + text)
    assert button is None or button.id == "p:" + text


def test_a_job_id_that_is_too_long_is_told_before_it_reaches_a_platform():
    with pytest.raises(ValueError, match="button id"):
        _ = Button("stop", "x" * 97).id


def test_labels_count_from_one():
    assert Button("vary", JOB, 0).label == "Vary 1"
    assert Button("stop", JOB).label == "Stop"


@pytest.mark.parametrize(("code", "shown"), [("refused", ["Appeal"]), ("refused_finally", []), ("engine_died", [])])
def test_an_answer_that_moderation_stopped_ends_with_a_way_to_appeal(code: str, shown: list[str]) -> None:
    page = Page("discord-1__m1", 2_000, len)
    page.take(TextDelta("Once upon a time."))
    failure = Failure(code=code, message="The answer was stopped.")
    page.take(Ended(Event(type="refused", job_id="discord-1__m1", reply=REPLY, at_s=1, failure=failure)))
    last = page.views()[-1]
    assert [button.label for button in last.buttons] == shown
    assert "Once upon a time." in last.text
