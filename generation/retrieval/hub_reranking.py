"""Cross-encoders of the hub, by name or from a directory: models of transformers that classify pairs of texts."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from generation.errors import ModelNotFoundError
from generation.retrieval.hub_models import load_model

MAX_TOKENS = 512


class HubReranker:
    """A cross-encoder with one output, or two of which the second says yes.

    Args:
        name: Repository or directory.
        device: Where it computes.

    Raises:
        ModelNotFoundError: It is not there, or torch and transformers are not.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._tokenizer, model = load_model(name, "AutoModelForSequenceClassification", "cross-encoder")
        if model.config.num_labels not in (1, 2):
            raise ModelNotFoundError(f"{name} is no cross-encoder: it has {model.config.num_labels} outputs.")
        self._model = model.to(device)
        self._device = device
        self._lock = threading.Lock()

    def log_odds(self, question: str, passages: Sequence[str]) -> list[float]:
        """Log-odds that each passage answers."""
        import torch

        if not passages:
            return []
        with self._lock, torch.inference_mode():
            inputs = self._tokenizer(
                [question] * len(passages), list(passages),
                padding=True, truncation="longest_first", max_length=MAX_TOKENS, return_tensors="pt",
            ).to(self._device)  # fmt: skip
            logits = self._model(**inputs).logits.float()
        odds = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        found: list[float] = odds.tolist()
        return found
