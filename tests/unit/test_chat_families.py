"""Every family answers as ``generate`` does, alone or in company."""

from __future__ import annotations

import logging

import pytest

from generation.chat.config import ChatConfig
from generation.chat.engine import ChatEngine
from tests.chat_models import (
    FAMILIES,
    STATEFUL,
    as_loaded,
    drain,
    generated,
    letter_tokenizer,
    prompt_of,
    request,
    tiny_model,
)

TEXTS = ["Hello", "What is the capital of France, and why?", "Sing! " * 12, "ß😀", "Tell me more about it."]


@pytest.mark.parametrize("family", [*FAMILIES, *STATEFUL])
def test_answers_of_a_mixed_batch_equal_generate(family: str, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = letter_tokenizer()
    requests = [request(str(n), text, "You are Nova.", max_new_tokens=6 + 5 * n) for n, text in enumerate(TEXTS)]
    model = tiny_model(family)
    expected = {
        chat.request_id: generated(model, prompt_of(chat, tokenizer), chat.sampling.max_new_tokens) for chat in requests
    }
    with caplog.at_level(logging.WARNING):
        engine = ChatEngine(as_loaded(model, tokenizer), ChatConfig(prefill_chunk_tokens=24, slots=4))
    assert (engine.info.backend == "one at a time") == (family in STATEFUL)
    warned = any(record.name.startswith("palaver") for record in caplog.records)
    assert warned == (family in STATEFUL), "the slow road is taken with a warning, and only where needed"

    def join(step: int) -> None:
        if step < len(requests):
            engine.submit(requests[step])

    said = drain(engine, join)
    for chat in requests:
        text = tokenizer.decode(expected[chat.request_id], skip_special_tokens=True)
        assert said.text[chat.request_id] == text, chat.request_id
    engine.close()
