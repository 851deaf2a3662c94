"""Pictures changed at random in ways that leave what they show the same: more than a small data set holds."""

from __future__ import annotations

from typing import Protocol

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

TURN_RAD = 0.35
SHIFT = 0.15
GREY_SHARE = 0.1
NOISE = 0.1
PATCH_SHARE = 0.5


class _Uniform(Protocol):
    def __call__(self, low: float, high: float, *shape: int) -> Tensor:
        """Draw numbers between two bounds, ``(batch, *shape)``."""


def augment(pictures: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, stretch, mirror, shift, tint and darken pictures, each by its own draw; add noise; cover a part.

    Args:
        pictures: ``(batch, 3, side, side) float32`` in -1 to 1, on white.
        generator: Of all choices, on the pictures' device.

    Returns:
        The same shape, -1 to 1.

    Source: DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout", 2017.
    """
    count = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(count, *shape, generator=generator, device=pictures.device) * (high - low) + low

    grid = F.affine_grid(_affine(uniform), list(pictures.shape), align_corners=False)
    # White is what comes in from outside.
    moved = F.grid_sample(pictures - 1, grid, padding_mode="zeros", align_corners=False)
    tint = torch.eye(3, device=pictures.device) + uniform(-0.16, 0.16, 3, 3)
    tint = torch.where(uniform(0, 1, 1, 1) < GREY_SHARE, torch.full_like(tint, 1 / 3), tint)
    tinted = (torch.einsum("bij,bjhw->bihw", tint, moved) + 1) * uniform(-0.25, 0.25, 1, 1, 1).exp()
    noise = torch.randn(pictures.shape, generator=generator, device=pictures.device)
    noisy = tinted + noise * uniform(0, NOISE, 1, 1, 1)
    return _cover(noisy, uniform).clamp(-1, 1)


def _affine(uniform: _Uniform) -> Tensor:
    """Random maps of the plane, ``(batch, 2, 3)``."""
    turn, scale, stretch = uniform(-TURN_RAD, TURN_RAD), uniform(-0.3, 0.25).exp(), uniform(-0.12, 0.12).exp()
    mirror = torch.where(uniform(0, 1) < 0.5, -1.0, 1.0)
    rows = (
        torch.stack([turn.cos() * scale * stretch * mirror, -turn.sin() * scale], dim=1),
        torch.stack([turn.sin() * scale * mirror, turn.cos() * scale / stretch], dim=1),
    )
    return torch.cat([torch.stack(rows, dim=1), uniform(-SHIFT, SHIFT, 2, 1)], dim=2)


def _cover(pictures: Tensor, uniform: _Uniform) -> Tensor:
    """Lay a square of one random colour over some of the pictures."""
    side = pictures.shape[-1]
    size, left, top = uniform(side / 8, side * 3 / 8), uniform(0, side * 3 / 4), uniform(0, side * 3 / 4)
    line = torch.arange(side, device=pictures.device)
    columns = (line >= left[:, None]) & (line < (left + size)[:, None])
    rows = (line >= top[:, None]) & (line < (top + size)[:, None])
    covered = rows[:, :, None] & columns[:, None, :] & (uniform(0, 1, 1, 1) < PATCH_SHARE)
    return torch.where(covered[:, None], uniform(-1, 1, 3, 1, 1), pictures)
