from __future__ import annotations

import io
import json

import pytest

from bots.cost import chat_cost_gpu_s
from bots.terminal import oneshot
from bots.terminal.answer import Answer, AnswerError, printable
from bots.terminal.interactive import finished_blocks
from bots.terminal.session import local_user
from workers.client import Ended, Queued, Restarted, TextDelta
from workers.contract import ChatMessage, Event, Failure, ReplyTo, UsageReport

USAGE = UsageReport(prompt_tokens=10, completion_tokens=21, ttft_s=1.0, duration_s=3.0)


def ended(kind: str = "finished", **changes: object) -> Ended:
    fields = {"type": kind, "job_id": "t__1", "reply": ReplyTo(front_end="terminal"), "at_s": 1.0, "usage": USAGE}
    return Ended(Event.model_validate(fields | changes))


class Told:
    """A session whose job tells what the test says, as ``follow`` of a real one would."""

    def __init__(self, *updates: object) -> None:
        self.updates = updates

    async def follow(self, answer: Answer):
        for update in self.updates:
            answer.take(update)
            yield answer


def test_an_answer_grows_to_its_end():
    answer = Answer("t__1")
    assert answer.status() == "thinking"
    answer.take(Queued(3, 7.6))
    assert answer.status() == "3 before this one, about 8 s"
    answer.take(Queued(0))
    assert answer.status() == "next in the queue"
    answer.take(TextDelta("Hel"))
    assert (answer.text, answer.status(), answer.queued) == ("Hel", "writing", None)
    answer.take(Restarted())
    assert (answer.text, answer.restarts) == ("", 1)
    answer.take(TextDelta("Hello"))
    answer.take(ended(finish_reason="length"))
    assert answer.tokens_per_s == 10.0
    assert answer.status().startswith("21 tokens, 10.0 tokens/s, first after ")
    assert answer.status().endswith("cut at the token limit")


@pytest.mark.parametrize(
    ("kind", "code", "exit_code"),
    [("failed", "engine_died", 70), ("failed", "prompt_too_long", 65), ("refused", "rule", 65)],
)
def test_an_end_without_an_answer_is_an_error_in_its_own_words(kind, code, exit_code):
    error = AnswerError(ended(kind, failure=Failure(code=code, message="What happened.")).event)
    assert (str(error), error.code, error.exit_code) == ("What happened.", code, exit_code)


def test_a_terminal_is_never_given_orders():
    assert printable("a\x1b]0;title\x07b\x1b[2J\r\nc\td\x9b5mé你") == "a]0;titleb[2J\nc\td5mé你"


@pytest.mark.parametrize(
    ("text", "done"),
    [
        ("", ""),
        ("one", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n\n", "one\n\n"),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("one\n ", ""),
    ],
)
def test_what_will_not_change_any_more_is_printed_for_good(text, done):
    assert text[: finished_blocks(text)] == done


async def test_text_is_written_as_it_grows_and_ends_with_a_newline():
    out = io.StringIO()
    session = Told(TextDelta("Hel"), TextDelta("lo"), ended())
    await oneshot._write_text(session, Answer("t__1"), out)
    assert out.getvalue() == "Hello\n"


async def test_an_answer_that_repeats_itself_after_a_restart_is_written_once():
    out = io.StringIO()
    session = Told(TextDelta("Hello"), Restarted(), TextDelta("Hel"), TextDelta("lo you"), ended())
    await oneshot._write_text(session, Answer("t__1"), out)
    assert out.getvalue() == "Hello you\n"


async def test_an_answer_that_says_something_else_after_a_restart_is_written_whole(capsys):
    out = io.StringIO()
    session = Told(TextDelta("Hello"), Restarted(), TextDelta("Good day"), ended())
    await oneshot._write_text(session, Answer("t__1"), out)
    assert out.getvalue() == "Hello\n\nGood day\n"
    assert "begins again" in capsys.readouterr().err


async def test_json_says_that_it_began_anew():
    out = io.StringIO()
    session = Told(Queued(2), TextDelta("Hel"), Restarted(), TextDelta("Hello"), ended(finish_reason="stop"))
    await oneshot._write_json(session, Answer("t__1"), out)
    told = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [line["type"] for line in told] == ["submitted", "queued", "delta", "restarted", "delta", "finished"]
    assert told[-1]["text"] == "Hello"


@pytest.mark.parametrize(
    ("login", "name"), [("ann", "ann"), ("a.b_c@d", "a-b-c-d"), ("...", "somebody"), ("", "somebody")]
)
def test_login_names_become_identifiers(monkeypatch, login, name):
    monkeypatch.setattr("getpass.getuser", lambda: login)
    assert local_user() == name


def test_costs_grow_with_what_is_asked_for():
    short = (ChatMessage(role="user", content="Hi"),)
    long = (ChatMessage(role="user", content="Hi " * 10_000),)
    assert 0 < chat_cost_gpu_s(short, 1) < chat_cost_gpu_s(short, 500) < chat_cost_gpu_s(long, 500)
    assert chat_cost_gpu_s(short, 1_000_000_000) == 86_400, "what the contract allows"
