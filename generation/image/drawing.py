"""One request on its way through the engine, and its pictures."""

from __future__ import annotations

import time
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from generation.image.family import Condition, Size
from generation.types import ImageRequest, Usage


@dataclass(frozen=True, slots=True)
class Kept:
    """What stays of an initial picture while the rest is drawn anew.

    Args:
        latents: Of the initial picture, ``(1, channels, rows, columns) float32``.
        mask: ``(1, 1, rows, columns) float32``, 1 where it is drawn anew.
        pixels: The initial picture, ``(1, 3, height, width) float32``.
        pixel_mask: ``(1, 1, height, width) float32``.
    """

    latents: Tensor
    mask: Tensor
    pixels: Tensor
    pixel_mask: Tensor


@dataclass(eq=False, slots=True)
class Drawing:
    """The mutable state of one request; compared by identity.

    Args:
        request: What is asked for.
        submitted_s: Monotonic time of ``submit``.
        deadline_s: Monotonic time at which it fails.
    """

    request: ImageRequest
    submitted_s: float
    deadline_s: float | None = None

    size: Size = field(default_factory=lambda: Size(0, 0))
    #: Side of the finished picture over the drawn one.
    enlargement: int = 1
    guidance_scale: float = 1.0
    rows: tuple[Condition, ...] = ()
    #: Drawings of one key share forward passes.
    key: Hashable = None
    samples: list[Sample] = field(default_factory=list)
    prompt_tokens: int = 0
    pictures_left: int = 1
    #: Virtual time: how much of the passes it has had.
    served: float = 0.0
    first_s: float | None = None
    gpu_s: float = 0.0
    image_steps: int = 0
    reported_step: int = 0

    @property
    def request_id(self) -> str:
        """Whose it is."""
        return self.request.request_id

    @property
    def total_steps(self) -> int:
        """Denoising steps of each of its pictures."""
        return self.samples[0].total_steps if self.samples else 0

    @property
    def step(self) -> int:
        """Steps done, averaged over its pictures and rounded down."""
        return sum(sample.position for sample in self.samples) // max(1, len(self.samples))

    def expired(self, now_s: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline_s is not None and now_s >= self.deadline_s

    def usage(self) -> Usage:
        """What it took up to now."""
        now_s = time.monotonic()
        return Usage(
            prompt_tokens=self.prompt_tokens,
            image_steps=self.image_steps,
            ttft_s=(self.first_s or now_s) - self.submitted_s,
            duration_s=now_s - self.submitted_s,
            gpu_s=self.gpu_s,
        )


@dataclass(eq=False, slots=True)
class Sample:
    """One picture while it is denoised.

    Args:
        drawing: Whose picture.
        index: Its number among the request's pictures.
        seed: What is reported with it.
        scheduler: Its own noise scheduler.
        generator: Its own random numbers.
        latents: ``(1, channels, rows, columns) float32``.
        noise: What it began from, of the same shape.
        timesteps: ``(steps,)``, on the CPU.
        kept: What stays of an initial picture.
        step_arguments: Keyword arguments of the scheduler's ``step``.
    """

    drawing: Drawing
    index: int
    seed: int
    scheduler: Any
    generator: torch.Generator
    latents: Tensor
    noise: Tensor
    timesteps: Tensor
    kept: Kept | None = None
    step_arguments: dict[str, Any] = field(default_factory=dict)
    position: int = 0
    #: Input, timestep and output of the last pass: what a preview is made of.
    seen: tuple[Tensor, Tensor, Tensor] | None = None

    @property
    def total_steps(self) -> int:
        """Passes from beginning to end."""
        return len(self.timesteps)

    @property
    def done(self) -> bool:
        """Whether it is denoised."""
        return self.position >= len(self.timesteps)

    @property
    def timestep(self) -> Tensor:
        """Of the next pass."""
        return self.timesteps[self.position]

    def model_input(self) -> Tensor:
        """What the denoiser sees next."""
        if hasattr(self.scheduler, "scale_model_input"):
            scaled: Tensor = self.scheduler.scale_model_input(self.latents, self.timestep)
            return scaled
        return self.latents

    def advance(self, model_input: Tensor, output: Tensor) -> None:
        """Take a step by the denoiser's output, guidance applied."""
        timestep = self.timestep
        self.seen = (model_input, timestep, output)
        arguments = self.step_arguments
        (self.latents, *_) = self.scheduler.step(output, timestep, self.latents, **arguments, return_dict=False)
        self.position += 1
        self.drawing.image_steps += 1
        if self.kept is not None:
            self._keep(self.kept)

    def _keep(self, kept: Kept) -> None:
        """Put back what is not drawn anew, as noisy as the rest.

        Source: Lugmayr et al., "RePaint", 2022, equation 8.
        """
        original = kept.latents if self.done else renoise(self.scheduler, kept.latents, self.noise, self.timestep)
        self.latents = (1 - kept.mask) * original + kept.mask * self.latents


def renoise(scheduler: Any, latents: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Clean latents as they are at a timestep."""
    add = scheduler.scale_noise if hasattr(scheduler, "scale_noise") else None
    noisy: Tensor
    if add is not None:
        noisy = add(latents, timestep[None], noise)
    else:
        noisy = scheduler.add_noise(latents, noise, timestep[None])
    return noisy
