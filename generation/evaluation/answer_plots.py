"""What was decided against what was right, and how far scores are to be believed: as one picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw

SIZE_PX = (960, 480)
BINS = 10
_INK, _GREY, _BLUE = (20, 20, 20), (200, 200, 200), (40, 90, 200)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a question.

    Args:
        score: Of the best passage.
        right: Whether that passage answers it.
        answerable: Whether any does.
    """

    score: float
    right: bool
    answerable: bool


def confusion(outcomes: Sequence[Outcome], answer_at: float, suggest_at: float) -> list[list[int]]:
    """Counts: rows right passage, wrong passage, outside; columns answer, did you mean, unknown."""
    counts = [[0, 0, 0] for _ in range(3)]
    for one in outcomes:
        row = 2 if not one.answerable else 0 if one.right else 1
        column = 0 if one.score >= answer_at else 1 if one.score >= suggest_at else 2
        counts[row][column] += 1
    return counts


def reliability(outcomes: Sequence[Outcome]) -> list[tuple[float, float, int]]:
    """For each tenth of the scores that occurs: mean score, share that was right, count."""
    bins: list[list[Outcome]] = [[] for _ in range(BINS)]
    for one in outcomes:
        bins[min(int(one.score * BINS), BINS - 1)].append(one)
    return [
        (sum(one.score for one in some) / len(some), sum(one.right for one in some) / len(some), len(some))
        for some in bins
        if some
    ]


def draw(outcomes: Sequence[Outcome], answer_at: float, suggest_at: float, path: Path) -> None:
    """Write the picture as PNG."""
    picture = Image.new("RGB", SIZE_PX, "white")
    pen = ImageDraw.Draw(picture)
    _draw_confusion(pen, confusion(outcomes, answer_at, suggest_at))
    _draw_reliability(pen, reliability(outcomes))
    picture.save(path)


def _draw_confusion(pen: ImageDraw.ImageDraw, counts: list[list[int]]) -> None:
    pen.text((20, 15), "What was decided", fill=_INK)
    for column, name in enumerate(("answer", "did you mean", "unknown")):
        pen.text((145 + 110 * column, 50), name, fill=_INK)
    for row, name in enumerate(("right passage", "wrong passage", "outside")):
        top = 75 + 110 * row
        pen.text((20, top + 45), name, fill=_INK)
        for column, count in enumerate(counts[row]):
            left = 130 + 110 * column
            shade = 255 - round(200 * count / max(sum(counts[row]), 1))
            pen.rectangle((left, top, left + 105, top + 105), fill=(shade, shade, 255), outline=_GREY)
            pen.text((left + 45, top + 45), str(count), fill=_INK)


def _draw_reliability(pen: ImageDraw.ImageDraw, points: list[tuple[float, float, int]]) -> None:
    left, bottom, side = 540, 420, 350
    pen.text((left, 15), "Score (across) and share that was right (up); area: how many", fill=_INK)
    pen.rectangle((left, bottom - side, left + side, bottom), outline=_GREY)
    pen.line((left, bottom, left + side, bottom - side), fill=_GREY)
    for score, share, count in points:
        x, y, radius = left + score * side, bottom - share * side, 2 + min(count, 400) ** 0.5
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=_BLUE, width=2)
