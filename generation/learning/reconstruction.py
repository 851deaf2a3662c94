"""Training of the autoencoder: its loss, its sheet, and how well it reconstructs."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from generation.image.autoencoder import PatchAutoencoder
from generation.learning import sheets
from generation.learning.dataset import DataSet
from generation.learning.scenes import Split

log = logging.getLogger("palaver.learning.reconstruction")

# Weights of the loss's parts: sharp edges matter more to the eye than the mean error says.
SQUARED_WEIGHT = 4.0
ABSOLUTE_WEIGHT = 1.0
GRADIENT_WEIGHT = 0.5
KL_WEIGHT = 3e-4
MAX_SHIFT_PX = 6
SHEET_PICTURES = 16


class ReconstructionLoss:
    """The loss of one batch of pictures, encoded and decoded again.

    Squared and absolute error of the pixels, absolute error of their differences to the right and below, and a small
    Kullback-Leibler term that keeps the latents near a standard normal distribution.

    Args:
        data: Where pictures come from: its training split.
        batch: Pictures of a batch.
    """

    def __init__(self, data: DataSet, batch: int) -> None:
        self._data, self._batch = data, batch
        self._positions = data.indices(Split.TRAIN)

    def __call__(self, model: PatchAutoencoder, generator: torch.Generator) -> Tensor:
        """Compute the loss of a random batch, randomly mirrored and shifted."""
        pictures = random_pictures(self._data, self._positions, self._batch, generator)
        dtype = model.decoder_position.dtype
        mean, log_variance = model.encode(pictures.to(dtype))
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        rebuilt = model.decode((mean + noise * (0.5 * log_variance).exp()).to(dtype)).float()
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        return pixel_loss(rebuilt, pictures) + KL_WEIGHT * divergence


def pixel_loss(rebuilt: Tensor, pictures: Tensor) -> Tensor:
    """Squared and absolute error, and the absolute error of differences to the right and below; a scalar."""
    difference = rebuilt - pictures
    gradient = difference.diff(dim=-1).abs().mean() + difference.diff(dim=-2).abs().mean()
    return (
        SQUARED_WEIGHT * difference.square().mean()
        + ABSOLUTE_WEIGHT * difference.abs().mean()
        + GRADIENT_WEIGHT * gradient
    )


def random_pictures(
    data: DataSet, positions: np.ndarray[tuple[int], np.dtype[np.int64]], count: int, generator: torch.Generator
) -> Tensor:
    """Draw pictures of a data set, all mirrored or not and shifted or not.

    Args:
        data: Where they come from.
        positions: Which of them may be drawn.
        count: How many.
        generator: Of the choices; its device is where the pictures go.

    Returns:
        ``(count, 3, height, width) float32`` in -1 to 1.
    """
    device = generator.device
    chosen = torch.randint(len(positions), (count,), generator=generator, device=device).cpu().numpy()
    pictures = to_tensor(data.pictures[np.sort(positions[chosen])]).to(device)
    mirror, shift, right, down = torch.rand(4, generator=generator, device=device).tolist()
    if mirror < 0.5:
        pictures = pictures.flip(-1)
    if shift < 0.5:
        span = 2 * MAX_SHIFT_PX + 1
        pictures = pictures.roll((int(right * span) - MAX_SHIFT_PX, int(down * span) - MAX_SHIFT_PX), (-1, -2))
    return pictures


def to_tensor(pictures: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> Tensor:
    """Turn ``(batch, height, width, 3) uint8`` into ``(batch, 3, height, width) float32`` in -1 to 1."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1.0


@torch.inference_mode()
def psnr_db(model: PatchAutoencoder, data: DataSet, split: Split, limit: int = 256) -> float:
    """Mean peak signal-to-noise ratio in dB of reconstructions from the latents' means.

    Args:
        model: The autoencoder.
        data: Where pictures come from.
        split: Which of them.
        limit: At most this many.
    """
    pictures = to_tensor(data.pictures[data.indices(split)[:limit]]).to(model.decoder_position.device)
    rebuilt = model.decode(model.encode(pictures)[0]).clamp(-1, 1)
    error = (rebuilt - pictures).square().mean(dim=(1, 2, 3))
    return float((10 * torch.log10(4.0 / error)).mean())


class ReconstructionSheet:
    """Draws held-out pictures above their reconstructions, and logs the PSNR of more of them."""

    def __init__(self, data: DataSet) -> None:
        self._data = data

    @torch.inference_mode()
    def __call__(self, model: PatchAutoencoder, path: Path) -> None:
        """Write the sheet as PNG."""
        rows = []
        for split in (Split.HELD_PICTURE, Split.HELD_SCENE):
            positions = self._data.indices(split)
            positions = positions[:: max(1, len(positions) // SHEET_PICTURES)][:SHEET_PICTURES]
            pictures = to_tensor(self._data.pictures[positions]).to(model.decoder_position.device)
            rows += [pictures, model.decode(model.encode(pictures)[0])]
        sheets.write(torch.cat(rows), SHEET_PICTURES, path)
        log.info("held-out pictures: PSNR %.2f dB", psnr_db(model, self._data, Split.HELD_PICTURE))
