"""What a training shows: a live line, a table of losses, and their curve as a picture."""

from __future__ import annotations

import csv
import logging
import math
import sys
import time
from itertools import accumulate
from pathlib import Path

from PIL import Image, ImageDraw

log = logging.getLogger("palaver.learning.progress")

COLUMNS = ("step", "elapsed_s", "loss", "rate_factor", "pictures_per_s")
LOG_EVERY_S = 60.0
CURVE_PX = (960, 480)
MARGIN_PX = 60


class Progress:
    """Follows one training.

    Args:
        folder: Where ``losses.csv`` and ``losses.png`` are written.
        label: What is trained, for the live line.
        step: The last finished step; later rows of an interrupted run are forgotten.
        total_steps: Where it ends.
        elapsed_s: Seconds of training before this process.
    """

    def __init__(self, folder: Path, label: str, step: int, total_steps: int, elapsed_s: float) -> None:
        self._table = folder / "losses.csv"
        self._curve = folder / "losses.png"
        self._label, self._total_steps, self._first_step = label, total_steps, step
        self._elapsed_before_s, self._started_s = elapsed_s, time.monotonic()
        self._logged_s = -LOG_EVERY_S
        self._smooth_loss: float | None = None
        rows = [row for row in read_losses(self._table) if row[0] <= step]
        folder.mkdir(parents=True, exist_ok=True)
        with self._table.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)

    @property
    def elapsed_s(self) -> float:
        """Seconds of training, those of earlier processes included."""
        return self._elapsed_before_s + time.monotonic() - self._started_s

    def report(self, step: int, loss: float, rate_factor: float, batch: int) -> None:
        """Tell that a step is done: a row of the table, and the live line."""
        smooth = loss if self._smooth_loss is None else 0.98 * self._smooth_loss + 0.02 * loss
        self._smooth_loss = smooth
        seconds = max(time.monotonic() - self._started_s, 1e-6)
        speed = (step - self._first_step) * batch / seconds
        with self._table.open("a", newline="") as file:
            csv.writer(file).writerow(
                (step, f"{self.elapsed_s:.1f}", f"{loss:.5f}", f"{rate_factor:.4f}", f"{speed:.1f}")
            )
        line = (
            f"{self._label}: step {step}/{self._total_steps}, loss {smooth:.4f}, {speed:.1f} pictures/s, "
            f"{self.elapsed_s / 60:.1f} min"
        )
        if sys.stderr.isatty():
            sys.stderr.write(f"\r\x1b[2K{line}")
            sys.stderr.flush()
        elif seconds - self._logged_s >= LOG_EVERY_S:
            self._logged_s = seconds
            log.info("%s", line)

    def draw_curve(self) -> None:
        """Draw the losses so far."""
        draw_curve(read_losses(self._table), self._label, self._curve)


def read_losses(table: Path) -> list[tuple[int, float, float, float, float]]:
    """Read a table of losses; a last row cut short by a kill is left out."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        rows = [row for row in csv.reader(file) if len(row) == len(COLUMNS) and row[0] != COLUMNS[0]]
    return [(int(row[0]), float(row[1]), float(row[2]), float(row[3]), float(row[4])) for row in rows]


def draw_curve(rows: list[tuple[int, float, float, float, float]], title: str, path: Path) -> None:
    """Draw loss over steps as a PNG with a logarithmic loss axis: every step in grey, a running mean in blue."""
    width, height = CURVE_PX
    image = Image.new("RGB", CURVE_PX, "white")
    draw = ImageDraw.Draw(image)
    draw.text((MARGIN_PX, 16), f"{title}: loss over steps", fill="black")
    draw.rectangle((MARGIN_PX, MARGIN_PX, width - MARGIN_PX, height - MARGIN_PX), outline="black")
    if len(rows) >= 2:
        steps = [row[0] for row in rows]
        losses = [math.log(max(row[2], 1e-6)) for row in rows]
        top, bottom = max(losses), min(losses)

        def point(step: float, loss: float) -> tuple[float, float]:
            share_x = (step - steps[0]) / (steps[-1] - steps[0])
            share_y = (loss - bottom) / max(1e-9, top - bottom)
            return MARGIN_PX + share_x * (width - 2 * MARGIN_PX), height - MARGIN_PX - share_y * (
                height - 2 * MARGIN_PX
            )

        draw.line([point(step, loss) for step, loss in zip(steps, losses, strict=True)], fill=(205, 205, 205))
        smooth = _running_mean(losses, window=max(1, len(losses) // 40))
        draw.line([point(step, loss) for step, loss in zip(steps, smooth, strict=True)], fill=(30, 90, 200), width=2)
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            loss, step = bottom + share * (top - bottom), steps[0] + share * (steps[-1] - steps[0])
            draw.text((8, point(step, loss)[1] - 6), f"{math.exp(loss):.3f}", fill="black")
            draw.text((point(step, loss)[0] - 12, height - MARGIN_PX + 10), f"{step:.0f}", fill="black")
    image.save(path)


def _running_mean(values: list[float], window: int) -> list[float]:
    """Average each value with at most ``window`` before it."""
    sums = [0.0, *accumulate(values)]
    return [
        (sums[end] - sums[start]) / (end - start) for end in range(1, len(sums)) for start in [max(0, end - window)]
    ]
