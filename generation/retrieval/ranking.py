"""How probable it is that a passage answers a question: vectors and shared terms, fused by calibrated scores."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields

#: Source: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.
BM25_K1 = 1.2
BM25_B = 0.75


@dataclass(frozen=True, slots=True)
class Features:
    """What a question and a passage have in common.

    Args:
        title: Cosine of question and heading.
        lead: Cosine of question and heading with the beginning of the text.
        best: The greater of the two.
        passage: Greatest cosine of question and a part of the text.
        terms: BM25 over the information of the question: about 0 to 2.2.
        coverage: Share of the question's information that the passage's terms cover, 0 to 1.
        level: Greatest cosine of the question and any passage, before anything is taken away from vectors: the same for
            all passages. It tells whether the question is about anything that is known at all.
    """

    title: float
    lead: float
    best: float
    passage: float
    terms: float
    coverage: float
    level: float = 0.0


@dataclass(frozen=True, slots=True)
class Calibration:
    """Weights of a logistic regression from features to the probability that a passage answers.

    Args:
        intercept: Log-odds of a passage that has nothing in common with the question.
        weights: For each unit of each feature.
    """

    intercept: float
    weights: Features


#: Fitted on every second question of ``palaver evaluate answers`` and the outside questions among them, the order of
#: passages first (softmax, ridge 0.02), then the level (Platt): without what the vectors have in common, and plain.
#: What is taken away says whether a question belongs here at all: without ``level``, 7 instead of 2 of 100 outside
#: questions pass where 4 of 100 answerable ones are refused.
WITHOUT_COMMON = Calibration(-7.15, Features(3.59, 1.64, 3.52, 2.40, 1.03, 0.55, 4.26))
PLAIN = Calibration(-5.47, Features(3.42, 2.16, 3.46, 2.31, 1.34, 0.53))


def information(frequencies: Mapping[str, int], chunks: int) -> dict[str, float]:
    """What each term tells, in nats: inverse document frequency, the highest for terms that nothing has."""
    return {term: math.log1p((chunks - count + 0.5) / (count + 0.5)) for term, count in frequencies.items()}


def features(
    cosines: Mapping[str, float],
    weights: Mapping[str, float],
    counts: Mapping[str, int],
    average_terms: float,
    level: float = 0.0,
) -> Features:
    """The features of a question and a passage.

    Args:
        cosines: Best cosine of each kind of vector.
        weights: Information of each term of the question.
        counts: How often each term occurs in the passage.
        average_terms: Mean number of terms of a passage.
        level: See `Features`.
    """
    total = sum(weights.values()) or 1.0
    shared = [term for term in weights if term in counts]
    longer = BM25_K1 * (1.0 - BM25_B + BM25_B * sum(counts.values()) / max(average_terms, 1.0)) if shared else 0.0
    bm25 = sum(weights[term] * counts[term] * (BM25_K1 + 1.0) / (counts[term] + longer) for term in shared)
    lead = cosines.get("lead", 0.0)
    title = cosines.get("title", lead)
    return Features(
        title=title,
        lead=lead,
        best=max(title, lead),
        passage=max(cosines.get("passage", lead), 0.0),
        terms=bm25 / total,
        coverage=sum(weights[term] for term in shared) / total,
        level=level,
    )


def relevance(found: Features, calibration: Calibration) -> float:
    """Probability that a passage answers a question."""
    odds = calibration.intercept + sum(
        getattr(calibration.weights, field.name) * getattr(found, field.name) for field in fields(Features)
    )
    return 1.0 / (1.0 + math.exp(-max(-50.0, min(50.0, odds))))
