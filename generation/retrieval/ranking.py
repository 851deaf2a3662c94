"""How probable it is that a passage answers a question: similarity and shared rare terms, fused by calibration."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of the logistic fusion.

    Args:
        intercept: Log-odds of a passage without anything in common.
        cosine: For each unit of the best cosine.
        coverage: For the share of the question's information that the passage's terms cover.
    """

    intercept: float = -6.0
    cosine: float = 10.0
    coverage: float = 4.0


DEFAULT = Calibration()


def information(frequencies: Mapping[str, int], chunks: int) -> dict[str, float]:
    """What each term tells, in nats: inverse document frequency, the highest for terms that nothing has.

    Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009, eq. 3.
    """
    return {term: math.log1p((chunks - count + 0.5) / (count + 0.5)) for term, count in frequencies.items()}


def coverage(terms: Sequence[str], weights: Mapping[str, float], passage: frozenset[str]) -> float:
    """Share of a question's information that a passage's terms cover, 0 to 1."""
    total = sum(weights[term] for term in terms)
    return sum(weights[term] for term in terms if term in passage) / total if total else 0.0


def relevance(similarities: Mapping[str, float], covered: float, calibration: Calibration = DEFAULT) -> float:
    """Probability that a passage answers a question.

    Args:
        similarities: Best cosine of each kind of vector.
        covered: See `coverage`.
        calibration: Weights.
    """
    best = max(similarities.values(), default=0.0)
    odds = calibration.intercept + calibration.cosine * best + calibration.coverage * covered
    return 1.0 / (1.0 + math.exp(-odds))
