from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generation.chat.config import ChatConfig
from generation.chat.engine import ChatEngine
from generation.chat.loading import load
from generation.provenance.text_watermark import DETECTED, TextWatermark
from generation.types import ChatRequest, Delta, Message, Sampling
from tests import embedded_model

QUESTIONS = ("Tell me a long story about the sea.", "Describe a market in a small town in detail.")


@pytest.fixture(scope="module")
def engine() -> ChatEngine:
    embedded_model.directory()
    config = ChatConfig(
        model=embedded_model.NAME,
        data_dir=embedded_model.DATA_DIR,
        device="cpu",
        slots=2,
        context_tokens=512,
        text_watermark_key="a key",
    )
    return ChatEngine(load(config, lambda *_: None), config)


def answers(engine: ChatEngine, temperature: float = 1.0) -> list[str]:
    for number, question in enumerate(QUESTIONS):
        rules = Sampling(max_new_tokens=110, temperature=temperature, seed=number)
        engine.submit(ChatRequest(str(number), (Message("user", question),), rules))
    texts = dict.fromkeys(("0", "1"), "")
    while engine.busy:
        for event in engine.step():
            if isinstance(event, Delta):
                texts[event.request_id] += event.text
    return list(texts.values())


@pytest.mark.model
def test_marked_answers_are_told_from_others(engine: ChatEngine, tmp_path: Path) -> None:
    def tokens(text: str) -> list[int]:
        ids: list[int] = engine._tokenizer.encode(text, add_special_tokens=False)
        return ids

    ours, other = TextWatermark("a key"), TextWatermark("another key")
    marked, greedy = answers(engine), answers(engine, 0.0)
    assert all(ours.detect(tokens(text)).found for text in marked)
    assert not any(other.detect(tokens(text)).found for text in marked)
    engine._watermark = None
    plain = answers(engine)
    assert plain != marked
    assert not any(ours.detect(tokens(text)).found for text in plain)
    assert answers(engine, 0.0) == greedy, "greedy answers are never touched"
    (tmp_path / "marked.txt").write_text(marked[0])
    (tmp_path / "plain.txt").write_text(plain[0])
    environment = os.environ | {
        "PALAVER_DATA_DIR": str(embedded_model.DATA_DIR),
        "PALAVER_CHAT__TEXT_WATERMARK_KEY": "a key",
    }
    for name, code in (("marked.txt", 0), ("plain.txt", 1)):
        command = [sys.executable, "-m", "bots.cli", "verify", "--text", str(tmp_path / name)]
        assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == code


def test_random_tokens_and_short_texts_are_not_ours() -> None:
    mark = TextWatermark("a key")
    generator = torch.Generator().manual_seed(0)
    scores = [mark.detect(torch.randint(0, 30_000, (120,), generator=generator).tolist()).score for _ in range(60)]
    assert max(scores) < DETECTED
    assert abs(sum(scores) / len(scores)) < 0.5
    assert not mark.detect([1, 2, 3]).found
