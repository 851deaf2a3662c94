"""Noise that pictures begin from: a function of seeds alone, the same on every device and beside any neighbours."""

from __future__ import annotations

import torch
from torch import Tensor


def new_generator(seed: int) -> torch.Generator:
    """A generator of one picture; on the CPU, whose random numbers are the same everywhere."""
    return torch.Generator("cpu").manual_seed(seed)


def draw(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draw standard normal noise, float32, on the CPU."""
    return torch.randn(shape, generator=generator)


def blend(first: Tensor, second: Tensor, share: float) -> Tensor:
    """Interpolate two noises on the sphere, so that what comes out is distributed as noise.

    Args:
        first: Taken at share 0.
        second: Taken at share 1; of the same shape.
        share: 0 to 1.

    Source: Shoemake, "Animating Rotation with Quaternion Curves", 1985.
    """
    cosine = torch.dot(first.flatten(), second.flatten()) / (first.norm() * second.norm())
    angle = torch.arccos(cosine.clamp(-1, 1))
    if float(angle.sin()) < 1e-4:  # the same noise, or as good as
        return torch.lerp(first, second, share)
    blended: Tensor = (torch.sin((1 - share) * angle) * first + torch.sin(share * angle) * second) / angle.sin()
    return blended
