"""The embedded text classifier for English: six kinds of toxicity from the Jigsaw challenge, a small BiLSTM."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import nn

from generation.moderation.types import Category, Finding
from generation.moderation.weights import JIGSAW, VOCABULARY_FILE, WEIGHTS_FILE
from generation.torch_devices import one_thread

#: The model's outputs in order.
LABELS = ("toxic", "severe_toxic", "obscene", "threat", "insult", "identity_hate")
CATEGORIES = {
    "toxic": Category.TOXICITY,
    "severe_toxic": Category.TOXICITY,
    "obscene": Category.PROFANITY,
    "threat": Category.THREAT,
    "insult": Category.INSULT,
    "identity_hate": Category.HATE,
}
#: Words that the model reads at once; longer texts are read in overlapping windows.
WINDOW_WORDS = 100
_OVERLAP_WORDS = 20
_EMBEDDING, _HIDDEN = 50, 50


class ToxicityNetwork(nn.Module):
    """Embedding, a bidirectional LSTM, the maximum over time, two layers.

    Source: the ``toxic-comment-classifier`` package's Keras model, whose outputs it reproduces.
    """

    def __init__(self, vocabulary_size: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary_size, _EMBEDDING)
        self.lstm = nn.LSTM(_EMBEDDING, _HIDDEN, batch_first=True, bidirectional=True)
        self.hidden = nn.Linear(2 * _HIDDEN, 50)
        self.out = nn.Linear(50, len(LABELS))

    def forward(self, word_ids: torch.Tensor) -> torch.Tensor:
        """Scores of windows.

        Args:
            word_ids: ``(batch, WINDOW_WORDS) int64``, zeros in front.

        Returns:
            ``(batch, 6) float32``, each from 0 to 1.
        """
        states, _ = self.lstm(self.embedding(word_ids))
        return torch.sigmoid(self.out(torch.relu(self.hidden(states.amax(1)))))


class ToxicityClassifier:
    """Scores texts for toxicity, many at once.

    Args:
        folder: The converted model, see ``weights.installed``.
    """

    name = f"model:{JIGSAW.name}"
    version = JIGSAW.version

    def __init__(self, folder: Path) -> None:
        vocabulary = json.loads((folder / VOCABULARY_FILE).read_text("utf-8"))
        self._words: dict[str, int] = vocabulary["words"]
        self._filters = str.maketrans(dict.fromkeys(vocabulary["filters"], " "))
        tensors = load_file(folder / WEIGHTS_FILE)
        self._network = ToxicityNetwork(len(tensors["embedding.weight"]))
        self._network.load_state_dict(tensors)
        self._network.eval()

    def findings(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What the model sees in each text: one finding for each category, the worst window's."""
        return [self._categories(scores) for scores in self.scores(texts)]

    @torch.inference_mode()
    def scores(self, texts: Sequence[str]) -> list[dict[str, float]]:
        """Scores by label for each text."""
        windows: list[list[int]] = []
        owners: list[int] = []
        for owner, text in enumerate(texts):
            for window in self._windows(text):
                windows.append(window)
                owners.append(owner)
        told = [dict.fromkeys(LABELS, 0.0) for _ in texts]
        if windows:
            with one_thread():
                rows = self._network(torch.tensor(windows)).tolist()
            for owner, row in zip(owners, rows, strict=True):
                for label, score in zip(LABELS, row, strict=True):
                    told[owner][label] = max(told[owner][label], score)
        return told

    def _windows(self, text: str) -> Iterator[list[int]]:
        """Word ids as the model was trained on them: unknown words left out, zeros in front."""
        ids = [self._words[word] for word in text.lower().translate(self._filters).split() if word in self._words]
        step = WINDOW_WORDS - _OVERLAP_WORDS
        for start in range(0, max(1, len(ids) - _OVERLAP_WORDS), step):
            window = ids[start : start + WINDOW_WORDS]
            if window:
                yield [0] * (WINDOW_WORDS - len(window)) + window

    def _categories(self, scores: dict[str, float]) -> list[Finding]:
        by_category: dict[Category, float] = {}
        for label, score in scores.items():
            category = CATEGORIES[label]
            by_category[category] = max(by_category.get(category, 0.0), score)
        make = functools.partial(Finding, decided_by=self.name, version=self.version)
        return [make(category, score) for category, score in by_category.items()]
