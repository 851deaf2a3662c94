"""Sentence-embedding models of the hub, by name or from a directory."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from generation.retrieval.embedding import BATCH_TEXTS, MAX_CHARS
from generation.retrieval.hub_models import load_model

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class HubEncoder:
    """A sentence-embedding model of the hub or of a directory: mean of the last hidden states, unit length.

    Args:
        name: Repository or directory.
        device: Where it computes.

    Raises:
        ModelNotFoundError: It is not there, or torch and transformers are not.
    """

    def __init__(self, name: str, device: str = "cpu") -> None:
        self._tokenizer, model = load_model(name, "AutoModel", "embedding model")
        self._model = model.to(device)
        self.name = str(Path(name).resolve()) if Path(name).is_dir() else name
        self.dimensions = int(self._model.config.hidden_size)
        self._device = device
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length."""
        import numpy as np
        import torch

        parts = []
        with self._lock, torch.inference_mode():
            for start in range(0, len(texts), BATCH_TEXTS):
                batch = [text[:MAX_CHARS] for text in texts[start : start + BATCH_TEXTS]]
                inputs = self._tokenizer(batch, padding=True, truncation=True, return_tensors="pt").to(self._device)
                hidden = self._model(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"][..., None]
                mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1)
                parts.append(torch.nn.functional.normalize(mean, dim=1).cpu().numpy())
        return np.concatenate(parts) if parts else np.zeros((0, self.dimensions), np.float32)
