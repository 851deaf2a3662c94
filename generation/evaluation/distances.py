"""How far apart two sets of pictures are, judged by features of each picture."""

from __future__ import annotations

import torch
from torch import Tensor

KID_SUBSETS = 100
KID_SUBSET_PICTURES = 1000


def frechet(first: Tensor, second: Tensor) -> float:
    """The Fréchet distance between Gaussians fitted to two sets of features (FID, when they are Inception's).

    With few pictures it is too large by an amount that depends on their number: compare it only between equal numbers.

    Args:
        first: ``(pictures, features) float64``, two pictures at least.
        second: ``(pictures, features) float64``.

    Source: Heusel et al., "GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium", 2017.
    """
    centred = [(features - features.mean(dim=0)) / (len(features) - 1) ** 0.5 for features in (first, second)]
    spread = sum(float(rows.square().sum()) for rows in centred)
    # With covariances A'A and B'B, the trace of the square root of their product is the nuclear norm of AB'.
    shared = float(torch.linalg.svdvals(centred[0] @ centred[1].T).sum())
    return float((first.mean(dim=0) - second.mean(dim=0)).square().sum()) + spread - 2 * shared


def kernel(first: Tensor, second: Tensor, seed: int = 0) -> float:
    """The kernel distance (KID, when the features are Inception's): unbiased, whatever the number of pictures.

    Args:
        first: ``(pictures, features) float64``, two pictures at least.
        second: ``(pictures, features) float64``.
        seed: Of the subsets that are averaged where there are many pictures.

    Source: Bińkowski et al., "Demystifying MMD GANs", 2018 (cubic kernel; the mean over subsets).
    """
    size = min(KID_SUBSET_PICTURES, len(first), len(second))
    rounds = 1 if size == len(first) == len(second) else KID_SUBSETS
    generator = torch.Generator().manual_seed(seed)
    total = 0.0
    for _ in range(rounds):
        chosen = [features[torch.randperm(len(features), generator=generator)[:size]] for features in (first, second)]
        total += _squared_discrepancy(*chosen)
    return total / rounds


def _squared_discrepancy(first: Tensor, second: Tensor) -> float:
    size, width = first.shape
    same = sum(
        (products.sum() - products.diagonal().sum()) / (size * (size - 1))
        for products in ((features @ features.T / width + 1) ** 3 for features in (first, second))
    )
    across = (first @ second.T / width + 1) ** 3
    return float(same - 2 * across.mean())
