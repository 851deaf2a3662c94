"""How different the pictures are that one caption gives, and how many things all of them show."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

WINDOW, SIGMA = 11, 1.5
LUMINANCE_CONSTANT, CONTRAST_CONSTANT = 0.01**2, 0.03**2
# The paper's weights of its five scales; a small picture has room for the first ones only.
SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)


def ms_ssim(first: Tensor, second: Tensor) -> Tensor:
    """Multi-scale structural similarity of pairs of pictures, over as many of the five scales as the pictures allow.

    Args:
        first: ``(pairs, 3, height, width) float32`` in -1 to 1, 11 px or more.
        second: The same shape.

    Returns:
        ``(pairs,) float32``: 1 for equal pictures.

    Source: Wang, Simoncelli and Bovik, "Multiscale Structural Similarity for Image Quality Assessment", 2003.
    """
    first, second = (first.float() + 1) / 2, (second.float() + 1) / 2
    side = min(first.shape[-2:])
    scales = max(1, sum(side >> scale >= WINDOW for scale in range(len(SCALE_WEIGHTS))))
    weights = torch.tensor(SCALE_WEIGHTS[:scales])
    weights = weights / weights.sum()
    total = torch.ones(len(first))
    for scale in range(scales):
        luminance, contrast = _similarity(first, second)
        term = contrast * luminance if scale == scales - 1 else contrast
        total = total * term.mean(dim=(1, 2, 3)).clamp(min=0) ** weights[scale]
        first, second = F.avg_pool2d(first, 2), F.avg_pool2d(second, 2)
    return total


def _similarity(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Maps of how alike two pictures are in brightness, and in contrast and structure."""
    place = torch.arange(WINDOW) - WINDOW // 2
    bell = torch.exp(-(place.float() ** 2) / (2 * SIGMA**2))
    window = (bell[:, None] * bell / bell.sum() ** 2).expand(3, 1, WINDOW, WINDOW)

    def local(values: Tensor) -> Tensor:
        return F.conv2d(values, window, groups=3)

    mean, other = local(first), local(second)
    variance = local(first * first) - mean * mean
    other_variance = local(second * second) - other * other
    covariance = local(first * second) - mean * other
    luminance = (2 * mean * other + LUMINANCE_CONSTANT) / (mean**2 + other**2 + LUMINANCE_CONSTANT)
    contrast = (2 * covariance + CONTRAST_CONSTANT) / (variance + other_variance + CONTRAST_CONSTANT)
    return luminance, contrast


def similarity_within(groups: Tensor) -> float:
    """Mean MS-SSIM of all pairs of pictures of the same caption: lower is more diverse.

    Args:
        groups: ``(captions, pictures, 3, height, width) float32``: some pictures of each caption, two at least.
    """
    pairs = list(itertools.combinations(range(groups.shape[1]), 2))
    return float(torch.stack([ms_ssim(groups[:, one], groups[:, two]).mean() for one, two in pairs]).mean())


def inception_score(chances: Tensor) -> float:
    """How sure a classifier is of each picture and how many classes they show together: 1 to the number of classes.

    Args:
        chances: ``(pictures, classes)``, each row adding up to 1.

    Source: Salimans et al., "Improved Techniques for Training GANs", 2016.
    """
    chances = chances.double().clamp(min=1e-12)
    overall = chances.mean(dim=0, keepdim=True)
    return float((chances * (chances.log() - overall.log())).sum(dim=1).mean().exp())
