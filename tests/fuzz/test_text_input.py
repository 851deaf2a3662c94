"""Text from people: Markdown of models, flags, buttons, settings, word lists, policies."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bots import image_flags, tenant_config
from bots.delivery import buttons
from bots.delivery.splitting import split, utf16_units
from bots.service import ChatService, Prompt
from bots.slack_bot import markup
from generation.moderation.policy import EffectivePolicy, WordList
from generation.moderation.policy_file import PolicyError, read_policy
from generation.moderation.presets import PRESETS
from generation.moderation.rules import check_attachments, check_text
from generation.moderation.types import Decision
from tests.fuzz.inputs import examples, texts
from workers.contract import ReplyTo
from workers.errors import SettingsError

#: Pieces that Markdown is made of, in any order.
markdown = st.lists(
    st.sampled_from(
        [
            *"`~*_#>-[]()!|\\ \n\t",
            "```",
            "~~~~",
            "```py\n",
            "\n```\n",
            "1. ",
            "- ",
            "https://x.y/z",
            "👩‍👩‍👧",
            "e\u0301\u0301",
            "東京",
        ]
    )
    | texts,
    max_size=60,
).map("".join)
flags = st.lists(
    st.sampled_from(
        [f"--{name}" for name in image_flags.FLAGS] + ["--", "---", '"', "'", "-- ar", "--AR", "—ar", "1:1", "0", "-1"]
    )
    | texts,
    max_size=12,
).map(" ".join)
words = st.lists(
    st.sampled_from([*"aeiou4310$@*.-_ \u200b\u0430\uff41", "sh1t", "f*ck", "w o r d", "敏感"]) | texts, max_size=40
).map("".join)


@examples(80)
@given(markdown, st.sampled_from([100, 200, 2_000]), st.sampled_from([len, utf16_units, markup.measure]))
def test_any_markdown_is_split_into_parts_that_fit(text, limit, measure):
    parts = split(text, limit, measure)
    assert all(measure(part.text) <= limit for part in parts)
    kept = "".join(part.text for part in parts)
    letters = re.findall(r"\w", text)
    assert len(re.findall(r"\w", kept)) >= len(letters), "no letter is lost"


@examples(30)
@given(markdown, markdown)
def test_a_growing_text_keeps_the_parts_that_were_shown(text, more):
    shown = split(text, 120)[:-1]
    after = split(text + more, 120, len, shown)
    assert [part.text for part in after[: len(shown)]] == [part.text for part in shown]


@examples(150)
@example('-- --negative " -- --ar -- "')
@example('--style " --ar " --')
@given(flags)
def test_any_flags_are_read_or_refused_in_words(text):
    try:
        asked = image_flags.parse(text)
    except image_flags.FlagError as error:
        assert 10 < len(str(error)) < 600
        return
    again = image_flags.parse(image_flags.render(asked))
    assert (again.prompt, again.options.model_copy(update={"style": None})) == (
        asked.prompt,
        asked.options.model_copy(update={"style": None}),
    )
    for kept, wanted in ((again.options.style, asked.options.style), (again.negative_prompt, asked.negative_prompt)):
        assert (kept or "").replace('"', "'") == (wanted or "").replace('"', "'"), "but for quotes"


@examples(80)
@given(texts, st.text(max_size=120))
def test_buttons_and_markup_of_anybody_are_read(text, other):
    buttons.parse(text)
    buttons.parse("p:" + other)
    markup.plain(text + other, "U1")
    assert "<!" not in markup.escaped(text + "<!channel>")


@pytest.mark.parametrize("name", list(tenant_config.TenantConfig.model_fields))
def test_any_setting_of_a_tenant_is_taken_or_refused(name):
    ceilings = tenant_config.Ceilings(1_000, 20.0, ["a"], "balanced")

    @examples(15)
    @given(texts)
    def check(text):
        try:
            tenant_config._read(name, text, ceilings)
        except SettingsError as error:
            assert "\n" not in str(error)

    check()


@examples(60)
@example("a prompt", ["*0"], [])
@example("a prompt", ["*(+?"], [])
@given(
    words,
    st.lists(st.text(min_size=1, max_size=12), max_size=4),
    st.lists(st.text(min_size=1, max_size=12), max_size=3),
)
def test_rules_decide_about_any_text_with_any_list(text, blocked, patterns):
    try:
        listed = WordList(words=tuple(blocked), patterns=tuple(patterns), allowed=tuple(blocked[:1]))
    except ValueError:
        listed = WordList(words=("word",))
    policy = EffectivePolicy(settings=PRESETS["balanced"], lists=(listed,))
    assert isinstance(check_text(text, policy), Decision)
    assert isinstance(check_attachments([text[:40]], policy), Decision)


@examples(80)
@given(
    st.lists(
        st.sampled_from(
            [
                "[categories]",
                "[[lists]]",
                "preset",
                "=",
                '"strict"',
                "\n",
                "words",
                "[",
                "]",
                '"',
                "1e999",
                "lists.words",
            ]
        )
        | texts,
        max_size=15,
    ).map(" ".join)
)
def test_any_policy_file_is_read_or_refused_in_one_line(text):
    try:
        read_policy(text)
    except PolicyError as error:
        assert "\n" not in str(error)


@examples(40)
@given(texts, st.sampled_from(["\ud800", "\udc00", "\ud83d", "a\udfffb"]))
def test_halves_of_characters_do_not_get_beyond_the_door(text, half):
    asked = Prompt("p", "t", "c", "u", "talk", "k", text + half, ReplyTo(front_end="f"))
    kept = ChatService(None, None)._apply_rules(asked).text  # type: ignore[arg-type]
    assert kept.encode()
    assert kept.startswith(text.rstrip("\ud800"))
