from __future__ import annotations

import re

import pytest
import regex
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bots.delivery.splitting import MIN_LIMIT, Part, split, utf16_units

MEASURES = st.sampled_from([len, utf16_units])
LIMITS = st.integers(MIN_LIMIT, 400)

words = st.sampled_from(
    [
        "tree",
        "a",
        "naïve",
        "你好",
        "👩‍👩‍👧‍👦",
        "🇨🇭",
        "e\u0301",
        "`x y`",
        "[a link](https://example.org/a/b)",
        "https://example.org/p",
    ]
)
sentence = st.lists(words, min_size=1, max_size=30).map(lambda parts: " ".join(parts) + ".")
code = st.lists(
    st.sampled_from(["x = 1", "", "    return y", "for i in range(10):", "z" * 60]), min_size=1, max_size=20
)
fenced = st.tuples(st.sampled_from(["python", "", "c++"]), code).map(
    lambda block: f"```{block[0]}\n" + "\n".join(block[1]) + "\n```"
)
items = st.lists(sentence, min_size=1, max_size=8).map(lambda rows: "\n".join(f"- {row}" for row in rows))
table = st.lists(st.just("| a | bb | ccc |"), min_size=2, max_size=30).map("\n".join)
documents = st.lists(st.one_of(sentence, fenced, items, table), max_size=8).map("\n\n".join)
#: Fences, marks and white space in any order: what a model may write while it goes astray.
noise = st.text(st.sampled_from(list("`~ \n-|[]()ab1.é👍\u0301\u200d\r\t")), max_size=900)
texts = st.one_of(documents, noise, st.text(max_size=600))


def fences_balanced(text: str) -> bool:
    """An independent reading: every block that opens is closed before the end."""
    marks = None
    for line in re.split(r"\r?\n", text):
        if marks is None:
            match = re.fullmatch(r"[ \t]{0,12}(?:(?:[-*+]|\d{1,3}[.)])[ \t]{1,4})?(`{3,16}|~{3,16})[^`~]{0,40}", line)
            marks = match[1] if match else None
        elif re.fullmatch(r"[ \t]{0,12}" + re.escape(marks) + re.escape(marks[0]) + r"*[ \t]{0,20}", line):
            marks = None
    return marks is None


@settings(deadline=None)
@given(texts, LIMITS, MEASURES)
@example("a" + "\u0301" * 1_000, 100, len)
@example("👍" * 300, 101, utf16_units)
@example("`" * 300, 100, len)
@example("```" + "x" * 50 + "\n" + "y" * 300, 100, len)
def test_every_part_fits_and_nothing_is_lost(text, limit, measure):
    parts = split(text, limit, measure)
    assert all(measure(part.text) <= limit for part in parts)
    assert all(part.text.strip() for part in parts)
    at = 0
    for part in parts:
        assert not text[at : part.start].strip(), "only blank stretches are left out"
        assert text[part.start : part.end].strip() in part.text
        at = part.end
    assert not text[at:].strip()


@settings(deadline=None)
@given(texts, LIMITS, MEASURES)
def test_fences_are_balanced_in_every_part(text, limit, measure):
    assert all(fences_balanced(part.text) for part in split(text, limit, measure))


@settings(deadline=None)
@given(documents, LIMITS)
def test_a_markdown_parser_finds_every_code_line_in_a_code_block(text, limit):
    expected = [line for line in _code_lines(text) if line.strip()]
    found = [line for part in split(text, limit) for line in _code_lines(part.text) if line.strip()]
    assert found == expected


def _code_lines(text: str) -> list[str]:
    tokens = MarkdownIt().parse(text)
    return [line for token in tokens if token.type == "fence" for line in token.content.split("\n")]


@settings(deadline=None)
@given(texts, LIMITS, MEASURES, st.data())
def test_full_messages_never_change_while_the_text_grows(text, limit, measure, data):
    whole = split(text, limit, measure)
    cut = data.draw(st.integers(0, len(text)))
    begun = split(text[:cut], limit, measure)
    assert split(text, limit, measure, begun) == whole
    assert begun[:-1] == whole[: max(0, len(begun) - 1)]


@settings(deadline=None)
@given(texts, LIMITS)
def test_grapheme_clusters_stay_whole(text, limit):
    clusters = regex.findall(r"\X", text)
    if any(len(cluster) > MIN_LIMIT - 60 for cluster in clusters):
        return
    borders, at = {0}, 0
    for cluster in clusters:
        at += len(cluster)
        borders.add(at)
    assert all(part.start in borders and part.end in borders for part in split(text, limit))


def test_short_texts_are_one_message():
    assert split("Hello.", 2000) == [Part("Hello.", 0, 6)]
    assert split("", 2000) == []
    assert split(" \n\n ", 2000) == []


def test_a_cut_code_block_is_opened_again_with_its_language():
    text = "Look:\n\n```python\n" + "\n".join(f"line_{n} = {n}" for n in range(40)) + "\n```\n\nDone."
    parts = split(text, 200)
    assert len(parts) > 2
    assert all(part.text.startswith("```python\nline_") for part in parts[1:-1])
    assert all(part.text.endswith("\n```") for part in parts[:-1])
    assert parts[-1].text.endswith("```\n\nDone.")


def test_paragraphs_are_kept_together():
    first, second = "A sentence here. " * 8, "Another one there. " * 8
    assert [part.text for part in split(f"{first}\n\n{second}", 200)] == [first.strip(), second.strip()]


def test_list_items_and_table_rows_are_kept_whole():
    rows = [f"- item {n} with a few words to fill it up" for n in range(12)]
    assert [line for part in split("\n".join(rows), 150) for line in part.text.split("\n")] == rows
    rows = [f"| row {n} | with | some cells | in it |" for n in range(12)]
    assert [line for part in split("\n".join(rows), 150) for line in part.text.split("\n")] == rows


def test_a_link_moves_to_the_next_message_as_a_whole():
    link = "[the long name of a page](https://example.org/" + "a" * 40 + ")"
    parts = split("word " * 14 + link + " and more words follow here.", 130)
    assert any(link in part.text for part in parts)


def test_an_end_of_block_that_just_fits_is_not_moved_to_a_message_of_its_own():
    text = "```\n" + "x" * 92 + "\n```"
    assert len(text) == 100
    assert [part.text for part in split(text, 100)] == [text]


def test_utf16_units_count_as_javascript_does():
    assert utf16_units("a👍é") == 4
    assert [utf16_units(part.text) for part in split("👍" * 100, 100, utf16_units)] == [100, 100]


def test_too_small_a_limit_is_refused():
    with pytest.raises(ValueError, match="at least 100"):
        split("text", 50)
