"""The best passages judged once more by a cross-encoder, which reads question and passage together."""

from __future__ import annotations

import importlib
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from generation.retrieval.types import Hit

#: How many passages are judged: each costs a pass through the model.
RERANKED = 20


class Reranker(Protocol):
    """Judges how well passages answer a question."""

    def log_odds(self, question: str, passages: Sequence[str]) -> list[float]:
        """Log-odds that each passage answers."""


def load_reranker(name: str) -> Reranker | None:
    """The cross-encoder of a name; None for none.

    Raises:
        ModelNotFoundError: There is none of that name.
    """
    if not name:
        return None
    # By name: it needs torch, which nobody imports who reranks nothing.
    reranker: Reranker = importlib.import_module("generation.retrieval.hub_reranking").HubReranker(name)
    return reranker


def reranked(reranker: Reranker, question: str, hits: Sequence[Hit]) -> list[Hit]:
    """Hits in a new order: the mean of both judgements' log-odds; those that are not judged come last, as they were."""
    judged = hits[:RERANKED]
    texts = ["\n".join([*(hit.heading_path or (hit.title,))[-1:], hit.text]) for hit in judged]
    scored = [
        replace(hit, score=round(_probability((_log_odds(hit.score) + odds) / 2), 4))
        for hit, odds in zip(judged, reranker.log_odds(question, texts), strict=True)
    ]
    return [*sorted(scored, key=lambda hit: -hit.score), *hits[RERANKED:]]


def _log_odds(probability: float) -> float:
    bounded = min(max(probability, 1e-4), 1 - 1e-4)
    return math.log(bounded / (1 - bounded))


def _probability(log_odds: float) -> float:
    return 1 / (1 + math.exp(-max(-30.0, min(30.0, log_odds))))
