"""The training loop: one step after another, resumable to the last checkpoint after a kill at any moment."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Generic, cast

import torch
from torch import Tensor, nn

from generation.learning import checkpoints
from generation.learning.progress import Progress
from generation.learning.weights import LearningRates, Model, Optimiser, TrainedWeights

log = logging.getLogger("palaver.learning.loop")

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and at which share of the learning rates to train.

    Args:
        total_steps: Where training ends.
        batch: Pictures of a step.
        warmup_steps: Steps in which the rates rise from zero.
        cooldown_steps: Steps at the end in which they fall to zero; between the two they are constant.
        rates: Learning rates.
        average_decay: Largest decay of the running average of the weights.
        max_gradient_norm: Longer gradients are shortened to this.
        seed: Of everything random. Step ``n`` draws the same numbers in whichever process it runs.

    Source: Hu et al., "MiniCPM", 2024 (warm-up, stable, decay: a long training can be ended well at any point).
    """

    total_steps: int
    batch: int
    warmup_steps: int = 100
    cooldown_steps: int = 0
    rates: LearningRates = field(default_factory=LearningRates)
    average_decay: float = 0.998
    max_gradient_norm: float = 1.0
    seed: int = 0

    def rate_factor(self, step: int, first_step: int = 0) -> float:
        """Share of the learning rates at a step.

        Args:
            step: Counted from 0.
            first_step: Where training began with new momenta: 0, or where a shipped model's training ended.
        """
        warm = min(1.0, (step - first_step + 1) / max(1, self.warmup_steps))
        left = self.total_steps - step
        cool = 1.0 if left >= self.cooldown_steps else left / self.cooldown_steps
        return warm * cool


@dataclass(frozen=True, slots=True)
class Intervals:
    """How often the loop does what costs time besides steps, in seconds."""

    checkpoint_s: float = 240.0
    sheet_s: float = 3600.0


class Stopped(Exception):  # noqa: N818 - an orderly end, not an error
    """SIGTERM or Ctrl+C came; the checkpoint is written."""


class Loop(Generic[Model]):
    """Trains one model.

    Args:
        folder: Of this training: checkpoint, losses, sheets.
        label: What is trained, for people.
        model: Freshly initialised; replaced by the checkpoint's weights if there is one.
        loss: Gives the loss of one batch: ``loss(working_model, generator) -> scalar``. All its randomness comes from
            the generator.
        schedule: How long and how fast.
        intervals: How often to save and to draw.
        draw_sheet: Writes a picture of what the average of the weights can do: ``draw_sheet(model, path)``.
        first_step: The step that ``model`` has reached already, if it was trained elsewhere.
        device: Where to compute. The generator and the losses' batches are there too.
        compiled: Whether to compile the forward and backward pass (worth it on a GPU).
    """

    def __init__(
        self,
        folder: Path,
        label: str,
        model: Model,
        loss: Callable[[Model, torch.Generator], Tensor],
        schedule: Schedule,
        intervals: Intervals,
        draw_sheet: Callable[[Model, Path], None],
        *,
        first_step: int = 0,
        device: torch.device = CPU,
        compiled: bool = False,
    ) -> None:
        self._folder, self._label, self._loss, self._draw_sheet = folder, label, loss, draw_sheet
        self._schedule, self._intervals, self._device = schedule, intervals, device
        # The plain method: diffusers' own warns of layers to keep in float32, and there are none.
        self._weights = TrainedWeights(nn.Module.to(model, device), torch.bfloat16, schedule.average_decay)
        self._optimiser = Optimiser(self._weights.master, schedule.rates)
        working = self._weights.working
        self._working: Model = cast("Model", torch.compile(working)) if compiled else working
        self._step, self._first_step, self._elapsed_s, self._stop = first_step, first_step, 0.0, False

    def run(self) -> Model:
        """Train to the end from the last checkpoint, or from the beginning.

        Returns:
            The running average of the weights, float32, on the CPU.

        Raises:
            Stopped: Asked to stop by a signal; what was learned is saved.
        """
        self._resume()
        progress = Progress(self._folder, self._label, self._step, self._schedule.total_steps, self._elapsed_s)
        previous = {number: signal.signal(number, self._ask_to_stop) for number in (signal.SIGTERM, signal.SIGINT)}
        saved_s = drawn_s = time.monotonic()
        try:
            while self._step < self._schedule.total_steps and not self._stop:
                loss, factor = self._one_step()
                progress.report(self._step, loss, factor, self._schedule.batch)
                now_s = time.monotonic()
                if now_s - saved_s >= self._intervals.checkpoint_s:
                    self._save(progress)
                    saved_s = now_s
                if now_s - drawn_s >= self._intervals.sheet_s:
                    self._sheet(progress)
                    drawn_s = now_s
            self._save(progress)
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
        if self._stop:
            raise Stopped(f"{self._label} stopped at step {self._step}; run the same command to go on.")
        self._sheet(progress)
        average: Model = nn.Module.to(self._weights.average, CPU)
        return average

    def _one_step(self) -> tuple[float, float]:
        generator = torch.Generator(self._device).manual_seed(self._schedule.seed * 1_000_003 + self._step)
        loss = self._loss(self._working, generator)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise ArithmeticError(f"{self._label}: the loss at step {self._step} is not a number; lower the rates.")
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves this method unannotated
        self._weights.take_gradients(self._schedule.max_gradient_norm)
        factor = self._schedule.rate_factor(self._step, self._first_step)
        self._optimiser.step(factor)
        self._step += 1
        self._weights.publish(self._step)
        return value, factor

    def _resume(self) -> None:
        state = checkpoints.load(self._folder)
        if state is not None:
            self._weights.load_state_dict(state["weights"])
            self._optimiser.load_state_dict(state["optimiser"])
            self._step, self._elapsed_s = state["step"], state["elapsed_s"]
            self._first_step = state.get("first_step", 0)
            log.info("%s: going on from step %d", self._label, self._step)

    def _save(self, progress: Progress) -> None:
        checkpoints.save(
            self._folder,
            {
                "step": self._step,
                "first_step": self._first_step,
                "elapsed_s": progress.elapsed_s,
                "weights": self._weights.state_dict(),
                "optimiser": self._optimiser.state_dict(),
            },
        )
        progress.draw_curve()

    def _sheet(self, progress: Progress) -> None:
        progress.draw_curve()
        sheets = self._folder / "sheets"
        sheets.mkdir(parents=True, exist_ok=True)
        self._draw_sheet(self._weights.average, sheets / f"step-{self._step:07d}.png")

    def _ask_to_stop(self, _number: int, _frame: FrameType | None) -> None:
        self._stop = True
