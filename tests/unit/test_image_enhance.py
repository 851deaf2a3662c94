"""Prompts made longer by the chat model: what is asked, what is taken, and the real model at work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from generation.chat.engine import ChatEngine
from generation.chat.factory import build
from generation.image import enhance
from generation.types import ChatRequest, Delta, Finished
from tests import embedded_model


@pytest.mark.parametrize(
    ("prompt", "answer", "drawn"),
    [
        ("a cat", '"A grey cat asleep on a red sofa."', "A grey cat asleep on a red sofa."),
        ("a cat", "Sure! Here is a prompt: A grey cat on a sofa.", "A grey cat on a sofa."),
        ("a cat", "Prompt: **A grey cat on a sofa.**", "A grey cat on a sofa."),
        ("a cat", "A grey cat on a sofa.\nIt looks happy.", "A grey cat on a sofa."),
        ("two cats", "A cat on a wooden chair.", "two cats, a cat on a wooden chair."),
        ("a cat", "I'm sorry, I can't draw pictures.", "a cat"),
        ("a cat", "As an AI language model I do not see cats.", "a cat"),
        ("a cat", "", "a cat"),
        ("a cat", "A cat.", "a cat"),
        ("a blue bird", "A cat on a sofa in the evening.", "a blue bird, a cat on a sofa in the evening."),
    ],
)
def test_what_is_taken_of_an_answer(prompt: str, answer: str, drawn: str) -> None:
    assert enhance.enhanced(prompt, answer) == drawn


def test_long_answers_end_at_a_clause() -> None:
    answer = "A cat " + ", ".join(f"with detail number {number}" for number in range(60))
    drawn = enhance.enhanced("a cat", answer)
    assert len(drawn) <= 350
    assert drawn in answer
    assert drawn[-1].isdigit()


@pytest.mark.parametrize(
    ("prompt", "worth"), [("a cat", True), ("", False), ("一只红色的狐狸", False), ("word " * 40, False)]
)
def test_prompts_that_gain_nothing_are_left_alone(prompt: str, worth: bool) -> None:
    assert enhance.worth_enhancing(prompt) is worth


@pytest.fixture(scope="module")
def real_engine() -> Iterator[ChatEngine]:
    engine = build({"model": str(embedded_model.directory()), "slots": 2, "dtype": "float32"}, lambda *_: None)
    assert isinstance(engine, ChatEngine)
    yield engine
    engine.close()


@pytest.mark.model
@pytest.mark.parametrize("prompt", ["a red fox in the snow", "two cats", "a blue car left of a tree"])
def test_the_real_model_adds_detail_and_loses_nothing(real_engine: ChatEngine, prompt: str) -> None:
    real_engine.submit(ChatRequest("a", enhance.messages(prompt), enhance.sampling(seed=1)))
    said = ""
    while real_engine.busy:
        for event in real_engine.step():
            if isinstance(event, Delta):
                said += event.text
            else:
                assert isinstance(event, Finished)
    drawn = enhance.enhanced(prompt, said)
    assert len(drawn.split()) > len(prompt.split()) + 4
    assert "\n" not in drawn
    for word in prompt.split():
        assert word[:3].lower() in drawn.lower()
