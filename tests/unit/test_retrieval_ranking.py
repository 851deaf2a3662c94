"""The parts of the fused score, and what is measured with it."""

from __future__ import annotations

import numpy as np

from generation.evaluation.answer_plots import Outcome, confusion, draw, reliability
from generation.evaluation.faq import entries
from generation.retrieval import ranking
from generation.retrieval.geometry import MIN_VECTORS, common_of


def test_what_all_vectors_share_is_taken_away() -> None:
    random = np.random.default_rng(1)
    shifted = (random.normal(size=(MIN_VECTORS, 32)) + 5.0).astype(np.float32)
    common = common_of(shifted)
    assert common is not None
    left = common.without(shifted)
    assert np.allclose(np.linalg.norm(left, axis=1), 1.0, atol=1e-4)
    assert abs(float((left @ left.T)[np.triu_indices(len(left), 1)].mean())) < 0.02


def test_too_few_vectors_have_nothing_to_be_taken_away() -> None:
    assert common_of(np.ones((MIN_VECTORS - 1, 8), np.float32)) is None


def test_a_rare_term_counts_for_more_than_a_common_one() -> None:
    weights = ranking.information({"foo-data": 1, "package": 400}, 500)
    rare = ranking.features({"lead": 0.3}, weights, {"foo-data": 1}, 1.0)
    common = ranking.features({"lead": 0.3}, weights, {"package": 1}, 1.0)
    calibration = ranking.WITHOUT_COMMON
    assert ranking.relevance(rare, calibration) > ranking.relevance(common, calibration)


def test_a_passage_with_nothing_in_common_is_improbable() -> None:
    nothing = ranking.features({}, {"weather": 3.0}, {}, 10.0)
    for calibration in (ranking.WITHOUT_COMMON, ranking.PLAIN):
        assert ranking.relevance(nothing, calibration) < 0.02


def test_sections_of_a_faq_are_told_by_their_numbers() -> None:
    page = b"<h1>Chapter 1. About</h1><h2>1.1. What is it?</h2><p>A system.</p><h2>1.2. Why?</h2><p>So.</p>"
    found = entries({"about.en.html": page})
    assert [(entry.number, entry.question, entry.text) for entry in found] == [
        ("1.1", "What is it?", "A system."),
        ("1.2", "Why?", "So."),
    ]


def test_decisions_are_counted_and_drawn(tmp_path) -> None:
    outcomes = [Outcome(0.9, True, True), Outcome(0.3, False, True), Outcome(0.05, False, False)]
    assert confusion(outcomes, 0.5, 0.2) == [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    assert [count for _, _, count in reliability(outcomes)] == [1, 1, 1]
    draw(outcomes, 0.5, 0.2, tmp_path / "answers.png")
    assert (tmp_path / "answers.png").read_bytes().startswith(b"\x89PNG")
