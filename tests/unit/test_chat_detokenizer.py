from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from generation.chat.detokenizer import Detokenizer
from tests.chat_models import byte_tokenizer

TOKENIZER = byte_tokenizer()


def pieces(text: str, stop: tuple[str, ...] = ()) -> tuple[list[str], Detokenizer]:
    detokenizer = Detokenizer(TOKENIZER, stop)
    said = []
    for token in TOKENIZER(text, add_special_tokens=False)["input_ids"]:
        said.append(detokenizer.add(token))
        if detokenizer.stopped:
            break
    said.append(detokenizer.flush())
    return said, detokenizer


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\ufffd"), max_size=40))
def test_pieces_are_whole_characters_and_make_the_text(text: str) -> None:
    said, _ = pieces(text)
    assert "".join(said) == text
    assert not any("\ufffd" in piece for piece in said)


@given(st.text(alphabet="ab😀", max_size=30), st.lists(st.text(alphabet="ab😀", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_string_and_no_part_of_it_was_said(text: str, stop: list[str]) -> None:
    said, detokenizer = pieces(text, tuple(stop))
    places = [text.find(string) for string in stop if string in text]
    # Of several stop strings the one that is complete first counts, because nobody waits for the others.
    assert detokenizer.stopped == bool(places)
    whole = "".join(said)
    assert text.startswith(whole)
    assert not any(string in whole for string in stop)
    if not places:
        assert whole == text
    else:
        assert any(text[len(whole) :].startswith(string) for string in stop)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    said, _ = pieces("one STX two", ("STOP",))
    assert said == ["o", "n", "e", " ", "", "", "STX", " ", "t", "w", "o", ""]


def test_bytes_that_are_no_text_show_as_replacement_and_do_not_hold_up_the_rest() -> None:
    detokenizer = Detokenizer(TOKENIZER)
    broken = TOKENIZER("é", add_special_tokens=False)["input_ids"][1]
    said = "".join(detokenizer.add(token) for token in [broken] * 9)
    said += "".join(detokenizer.add(token) for token in TOKENIZER("ok", add_special_tokens=False)["input_ids"])
    assert said.endswith("ok")
    assert "\ufffd" in said


def test_half_a_character_at_the_end_is_dropped() -> None:
    detokenizer = Detokenizer(TOKENIZER)
    tokens = TOKENIZER("a😀", add_special_tokens=False)["input_ids"]
    assert "".join(detokenizer.add(token) for token in tokens[:-1]) + detokenizer.flush() == "a"


@pytest.mark.parametrize("control", ["<|im_start|>", "<|im_end|>"])
def test_control_tokens_are_no_text(control: str) -> None:
    detokenizer = Detokenizer(TOKENIZER)
    tokens = TOKENIZER(f"a{control}b", add_special_tokens=False)["input_ids"]
    assert "".join(detokenizer.add(token) for token in tokens) == "ab"
