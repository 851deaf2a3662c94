"""What of a passage is quoted, what it supports, and what thresholds and templates are taken."""

from __future__ import annotations

import json

import pytest

from generation.errors import InvalidRequestError
from generation.evaluation.answers import SUPPORT
from generation.retrieval import calibration, quoting, support, templates
from generation.retrieval.calibration import Judged
from generation.retrieval.templates import Slot, Template

PASSAGE = (
    "Our house was founded long ago by two sisters. They sold tea and bread to travellers of all countries.\n\n"
    "To see what is installed, execute\n\ndpkg --list\n\n"
    "The house has been rebuilt twice. Nothing is left of the first one, and of the second there is the cellar only."
)


def test_a_long_passage_is_trimmed_to_what_bears_on_the_question() -> None:
    sentences = quoting.sentences_in(PASSAGE)
    cosines = [0.9 if "installed" in sentence else 0.1 for sentence in sentences]
    quote = quoting.trimmed("what is installed?", PASSAGE, sentences, cosines)
    assert quote.text == "To see what is installed, execute\n\ndpkg --list", "the command belongs to its introduction"
    assert quote.text in PASSAGE
    assert quote.shown.startswith("… ")
    assert quote.shown.endswith(" …")
    assert support.supported(quote.text, PASSAGE)


def test_a_sentence_that_speaks_of_the_one_before_is_not_quoted_alone() -> None:
    passage = "Some packages are split in two. In these cases the data stay behind. " + "Nothing else is kept. " * 12
    sentences = quoting.sentences_in(passage)
    cosines = [0.9 if "behind" in sentence else 0.1 for sentence in sentences]
    quote = quoting.trimmed("why are the data still there?", passage, sentences, cosines)
    assert quote.text == "Some packages are split in two. In these cases the data stay behind."


def test_a_short_passage_is_quoted_whole() -> None:
    assert quoting.trimmed("when?", "We open at nine.", [], []) == quoting.Quote("We open at nine.", True, True)


def test_a_quote_is_bounded_even_without_sentences() -> None:
    quote = quoting.trimmed("what?", "x" * 5000, ["x" * 5000], [0.5])
    assert len(quote.text) == quoting.MAX_QUOTE_CHARS
    assert not quote.ends


def test_of_the_labelled_statements_few_pass_that_are_unsupported() -> None:
    pairs = json.loads(SUPPORT.read_text("utf-8"))
    assert sum(len(pair["supported"]) + len(pair["unsupported"]) for pair in pairs) == 200
    passed = [each for pair in pairs for each in pair["unsupported"] if support.supported(each, pair["passage"])]
    kept = [each for pair in pairs for each in pair["supported"] if support.supported(each, pair["passage"])]
    assert len(passed) <= 2, passed
    assert len(kept) >= 85


def test_what_is_added_to_a_passage_is_found() -> None:
    said = "The warranty covers two years. Call 555-0100 for a free upgrade."
    assert support.unsupported(said, ["The warranty covers two years."]) == ["Call 555-0100 for a free upgrade."]


def test_thresholds_let_few_wrong_answers_through_and_refuse_few_right_ones() -> None:
    right = [Judged(0.4 + n / 100, right=True, answerable=True) for n in range(40)]
    wrong = [Judged(0.1 + n / 100, right=False, answerable=False) for n in range(35)]
    found = calibration.calibrated([*right, *wrong])
    assert 0.36 <= found.answer <= 0.46
    assert found.right >= calibration.WANTED_RIGHT
    assert found.refused <= calibration.MOST_REFUSED
    assert found.suggest <= found.answer


def test_thresholds_are_not_made_of_chance() -> None:
    with pytest.raises(InvalidRequestError, match="at least 20"):
        calibration.calibrated([Judged(0.5, right=True, answerable=True)] * 19)
    with pytest.raises(InvalidRequestError, match="40 right"):
        calibration.calibrated([Judged(0.5, right=True, answerable=True)] * 40)


NUMBER = Slot("number", "[A-Z]{2}-[0-9]{4}", "Which order?")


def test_slots_are_filled_from_the_latest_that_was_said() -> None:
    known = templates.validated(Template("order", ("Where is it?",), "Order {number} {number}.", (NUMBER,)))
    assert known.filled(["Where is it?"]) == ("", NUMBER)
    assert known.filled(["订单号是ab-1234谢谢", "AB-9999"]) == ("Order ab-1234 ab-1234.", None)
    assert known.filled(["XAB-12345"])[1] == NUMBER, "a part of another word is none"
    assert templates.from_metadata(templates.to_metadata(known)) == known


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (Template("Order 1", ("q",), "t"), "id"),
        (Template("o", (), "t"), "questions"),
        (Template("o", ("q",), " "), "text"),
        (Template("o", ("q",), "{number}"), "no pattern"),
        (Template("o", ("q",), "t", (NUMBER,)), "not in the text"),
        (Template("o", ("q",), "{Number}"), "Braces"),
        (Template("o", ("q",), "{n}", (Slot("n", "(a+)+b", "?"),)), "no groups"),
        (Template("o", ("q",), "{n}", (Slot("n", "[", "?"),)), "is none"),
        (Template("o", ("q",), "{n}", (Slot("n", "a*", "?"),)), "no characters"),
        (Template("o", ("q",), "{n}", (Slot("n", "a", " "),)), "asked for"),
    ],
)
def test_a_template_that_cannot_be_used_is_told(wrong: Template, told: str) -> None:
    with pytest.raises(InvalidRequestError, match=told):
        templates.validated(wrong)
