"""Training of the denoiser: rectified flow on latents, conditioned on captions and styles."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from generation.image.autoencoder import PatchAutoencoder
from generation.image.conditioning import Conditioning
from generation.image.denoiser import TokenDenoiser
from generation.learning import sheets
from generation.learning.dataset import DataSet
from generation.learning.features import CaptionChoices, CaptionFeatures
from generation.learning.scenes import Kind, Split

# How often pictures of each kind are drawn: things come first, arrangements of them are learned on the side.
KIND_SHARES: Mapping[Kind, float] = {
    Kind.SINGLE: 0.60,
    Kind.BACKGROUND: 0.12,
    Kind.RECOLOUR: 0.06,
    Kind.PLACE: 0.04,
    Kind.COUNT: 0.06,
    Kind.PAIR: 0.12,
}
CHINESE_SHARE = 0.3
# Classifier-free guidance needs the model without conditions too (Ho and Salimans, 2022).
NO_CONDITION_SHARE = 0.1
# English is also learned from the sentence vector alone, so that other languages profit from it.
NO_TOKENS_SHARE = 0.15
ANY_STYLE_SHARE = 0.3
# Blurs the discrete set of latents a little, in units of their standard deviation.
LATENT_JITTER = 0.05


class FlowLoss:
    """The loss of one batch: how far the predicted velocity is from ``noise - clean``.

    Args:
        data: Its training split is used.
        latents: ``(pictures, channels, rows, columns)``, normalised, where the loss is to be computed.
        captions: Features of the captions, on the same device.
        batch: Pictures of a batch.

    Source: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024 (logit-normal
    noise levels).
    """

    def __init__(self, data: DataSet, latents: Tensor, captions: CaptionFeatures, batch: int) -> None:
        self._latents, self._captions, self._batch = latents, captions, batch
        positions = data.indices(Split.TRAIN)
        kinds = np.asarray([data.records[position].kind for position in positions])
        counts = np.bincount(kinds, minlength=len(Kind))
        device = latents.device
        self._positions = torch.from_numpy(positions).to(device)
        chances = [KIND_SHARES[Kind(kind)] / counts[kind] for kind in kinds]
        self._chances = torch.tensor(chances, dtype=torch.float64, device=device)
        self._styles = torch.tensor([record.style for record in data.records], device=device)
        english = [[one for one in record.captions if one < data.english] for record in data.records]
        chinese = [[one for one in record.captions if one >= data.english] for record in data.records]
        self._choices = (CaptionChoices(english, device), CaptionChoices(chinese, device))

    def __call__(self, model: TokenDenoiser, generator: torch.Generator) -> Tensor:
        """Compute the loss of a random batch; the generator is on the latents' device."""
        size, device = (self._batch,), self._latents.device
        picked = torch.multinomial(self._chances, self._batch, replacement=True, generator=generator)
        positions = self._positions[picked]
        clean = self._latents[positions].float()
        clean = clean + LATENT_JITTER * torch.randn(clean.shape, generator=generator, device=device)
        noise = torch.randn(clean.shape, generator=generator, device=device)
        sigma = torch.sigmoid(torch.randn(size, generator=generator, device=device))
        share = sigma[:, None, None, None]
        condition = self._captions.take(self._choose_captions(positions, generator))
        dropped = torch.rand(size, generator=generator, device=device) < NO_CONDITION_SHARE
        no_tokens = torch.rand(size, generator=generator, device=device) < NO_TOKENS_SHARE
        any_style = torch.rand(size, generator=generator, device=device) < ANY_STYLE_SHARE
        velocity = model(
            (1 - share) * clean + share * noise,
            sigma,
            condition.tokens,
            condition.sentence,
            torch.where(dropped | any_style, model.any_style, self._styles[positions]),
            text_dropped=dropped | no_tokens | ~condition.has_tokens,
            sentence_dropped=dropped,
        )
        error: Tensor = (velocity - (noise - clean)).square().mean()
        return error

    def _choose_captions(self, positions: Tensor, generator: torch.Generator) -> Tensor:
        """Choose one caption for each picture, a Chinese one at a fixed share; ``(pictures,) int64``."""
        numbers = torch.rand((len(positions), 2), generator=generator, device=positions.device)
        english, chinese = (choices.pick(positions, numbers[:, 1]) for choices in self._choices)
        return torch.where(numbers[:, 0] < CHINESE_SHARE, chinese, english)


@dataclass(frozen=True, slots=True)
class Guidance:
    """How samples are drawn for a sheet.

    Args:
        steps: Euler steps.
        scale: Classifier-free guidance; 1 is none.
    """

    steps: int = 12
    scale: float = 3.0


@torch.inference_mode()
def sample(
    model: TokenDenoiser, condition: Conditioning, style: Tensor, shape: Sequence[int], guidance: Guidance, seed: int
) -> Tensor:
    """Draw latents from noise by Euler steps of equal size.

    Args:
        model: The denoiser.
        condition: Of each sample.
        style: ``(samples,) int64``.
        shape: Of one sample: ``(channels, rows, columns)``.
        guidance: How.
        seed: Of the noise.

    Returns:
        ``(samples, channels, rows, columns) float32``, normalised.
    """
    count, device = len(style), style.device
    latents = torch.randn((count, *shape), generator=torch.Generator().manual_seed(seed)).to(device)
    everyone = torch.ones(count, dtype=torch.bool, device=device)
    both = {
        "text": condition.tokens.repeat(2, 1, 1),
        "sentence": condition.sentence.repeat(2, 1),
        "style": torch.cat([style, torch.full_like(style, model.any_style)]),
        "text_dropped": torch.cat([~condition.has_tokens, everyone]),
        "sentence_dropped": torch.cat([~everyone, everyone]),
    }
    levels = torch.linspace(1.0, 0.0, guidance.steps + 1, device=device)
    for now, after in pairwise(levels):
        velocity = model(latents.repeat(2, 1, 1, 1), now.expand(2 * count), **both)
        guided, unguided = velocity.chunk(2)
        latents = latents + (after - now) * (unguided + guidance.scale * (guided - unguided))
    return latents


class SampleSheet:
    """Draws what the denoiser makes of fixed prompts.

    Args:
        autoencoder: Decodes.
        condition: Of the prompts.
        captions: Written below the pictures.
        styles: ``(prompts,) int64``.
        shape: Of one sample's latents.
        columns: Pictures in a row.
    """

    def __init__(
        self,
        autoencoder: PatchAutoencoder,
        condition: Conditioning,
        captions: Sequence[str],
        styles: Tensor,
        shape: Sequence[int],
        columns: int,
    ) -> None:
        self._autoencoder, self._condition, self._captions = autoencoder, condition, captions
        self._styles, self._shape, self._columns = styles, shape, columns

    @torch.inference_mode()
    def __call__(self, model: TokenDenoiser, path: Path) -> None:
        """Write the sheet as PNG."""
        fast = nn.Module.to(copy.deepcopy(model), torch.bfloat16)  # a sheet costs as much as several training steps
        device = next(fast.parameters()).device
        condition = self._condition.to(device)
        latents = sample(fast, condition, self._styles.to(device), self._shape, Guidance(), seed=0)
        pictures = self._autoencoder.decode(self._autoencoder.denormalise(latents))
        sheets.write(pictures, self._columns, path, self._captions)
