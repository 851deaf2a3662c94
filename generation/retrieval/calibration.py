"""From which score there is an answer, and from which a suggestion: found on questions whose outcome is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from generation.errors import InvalidRequestError

#: Fewer say little: thresholds from them would be chance.
LEAST_JUDGED = 20
LEAST_OF_EACH = 4
#: Share of shown answers that are to be right.
WANTED_RIGHT = 0.95
#: Share of answerable questions that may be refused.
MOST_REFUSED = 0.05
LOWEST, HIGHEST = 0.05, 0.95


@dataclass(frozen=True, slots=True)
class Judged:
    """A question and what came of it.

    Args:
        score: Of the best passage, 0 to 1.
        right: Whether that passage answers it.
        answerable: Whether any does.
    """

    score: float
    right: bool
    answerable: bool


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What was found.

    Args:
        answer: Least score of an answer.
        suggest: Least score of a suggestion.
        shown: Share of the questions that get an answer.
        right: Share of those that are right.
        refused: Share of answerable questions that are refused.
        outside_refused: Share of the others that are.
    """

    answer: float
    suggest: float
    shown: float
    right: float
    refused: float
    outside_refused: float


def calibrated(judged: Sequence[Judged]) -> Thresholds:
    """The lowest threshold for answers of which enough are right, and the highest for suggestions that refuses few.

    Raises:
        InvalidRequestError: There are too few questions, or only ones that were answered well, or badly.
    """
    good = [one for one in judged if one.right]
    if len(judged) < LEAST_JUDGED or not LEAST_OF_EACH <= len(good) <= len(judged) - LEAST_OF_EACH:
        raise InvalidRequestError(
            f"Thresholds need at least {LEAST_JUDGED} questions of known outcome, of them {LEAST_OF_EACH} that are "
            f"answered rightly and {LEAST_OF_EACH} that are not; there are {len(judged)} and {len(good)} right ones."
        )
    places = sorted({_between(one.score) for one in judged} | {HIGHEST})
    answer = next((place for place in places if _right(judged, place) >= WANTED_RIGHT), HIGHEST)
    answerable = [one for one in judged if one.answerable]
    suggest = max((place for place in places if _refused(answerable, place) <= MOST_REFUSED), default=LOWEST)
    suggest = min(suggest, answer)
    outside = [one for one in judged if not one.answerable]
    shown = sum(one.score >= answer for one in judged) / len(judged)
    return Thresholds(
        round(answer, 4), round(suggest, 4), shown, _right(judged, answer), _refused(answerable, suggest),
        _refused(outside, suggest),
    )  # fmt: skip


def _between(score: float) -> float:
    return max(LOWEST, min(HIGHEST, score))


def _right(judged: Sequence[Judged], threshold: float) -> float:
    shown = [one.right for one in judged if one.score >= threshold]
    return sum(shown) / len(shown) if shown else 1.0


def _refused(judged: Sequence[Judged], threshold: float) -> float:
    return sum(one.score < threshold for one in judged) / max(len(judged), 1)
