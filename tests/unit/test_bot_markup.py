"""Markup of the Slack front-end: nothing that a model writes pings, and what people write is read as meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bots.slack_bot.markup import defused, escaped, measure, mentions, plain
from tests.fake_workspace.content import pinged

TARGETS = ["!channel", "!here|here", "!everyone", "@U123", "@W1|x", "!subteam^S1|@a", "#C1"]
PIECES = st.sampled_from(
    [f"<{target}>" for target in TARGETS] + ["@here", "@channel", "<", "@", "!", "`", "```\n", ">", " "]
)
HOSTILE = st.lists(PIECES | st.text(max_size=3), max_size=12).map("".join)


@given(HOSTILE)
def test_markdown_never_pings(text):
    shown = defused(text)
    assert pinged("", [{"type": "markdown", "text": shown}], {}) == []
    assert shown.replace("\u200b", "") == text.replace("\u200b", "")
    assert len(shown) <= measure(text)


@given(HOSTILE)
def test_mrkdwn_never_pings(text):
    shown = escaped(text)
    assert pinged(shown, [{"type": "section", "text": {"type": "mrkdwn", "text": shown}}], {"link_names": True}) == []


@given(HOSTILE, HOSTILE)
def test_lengths_add_up(first, second):
    assert measure(first) + measure(second) == measure(first + second)


def test_code_is_left_readable():
    code = "```python\nif a < b and c > d & e:\n    mail('x@here.example')\n```"
    assert defused(code) == code


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("<@UBOT1> what is 1 &lt; 2 &amp;&amp; 3?", "what is 1 < 2 && 3?"),
        ("hey <@UBOT1>, ask <@U2|ann> and <@U3>", "hey , ask @ann and @U3"),
        ("see <https://a.example/x|the docs> in <#C1|general>", "see the docs (https://a.example/x) in #general"),
        ("<https://a.example>", "https://a.example"),
        ("<mailto:a@b.example|a@b.example> <!here> <!subteam^S1|@ops>", "a@b.example @here @ops"),
        ("&lt;!channel&gt;", "<!channel>"),
        ("half \ud83d a character", "half ? a character"),
    ],
)
def test_what_people_write_is_read(sent, meant):
    assert plain(sent, "UBOT1") == meant


def test_mentions():
    assert mentions("a <@U1|x> b", "U1")
    assert not mentions("a &lt;@U1&gt; b <@U12>", "U1")
