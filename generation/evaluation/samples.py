"""Pictures that an image model draws of captions, some at a time."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch import Tensor, nn

from generation.errors import ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.conditioning import Conditioning
from generation.image.denoiser import TokenDenoiser
from generation.learning.diffusion import Guidance, sample

log = logging.getLogger("palaver.evaluation.samples")

BATCH = 32


class Painter:
    """Draws with an exported model.

    Args:
        folder: With ``vae`` and ``transformer``.
        guidance: How.
        device: Where to compute.

    Raises:
        ModelNotFoundError: There is no model in the folder.
    """

    def __init__(self, folder: Path, guidance: Guidance, device: torch.device) -> None:
        if not (folder / "transformer" / "config.json").exists():
            raise ModelNotFoundError(
                f"There is no image model in {folder}: export one (python -m generation.learning.export cpu) or name "
                "its directory."
            )
        self._autoencoder = PatchAutoencoder.from_pretrained(folder / "vae").float().to(device).eval()
        denoiser = TokenDenoiser.from_pretrained(folder / "transformer").eval()
        # Twice as fast as float32 on a CPU that knows bf16; the latents between the steps stay float32.
        self.denoiser: TokenDenoiser = nn.Module.to(denoiser, device, torch.bfloat16)
        config = self._autoencoder.config
        side = config["picture_px"] // config["patch_px"]
        self._shape = (config["latent_channels"], side, side)
        self._guidance, self._device = guidance, device

    @torch.inference_mode()
    def __call__(self, captions: Conditioning, styles: Tensor, seed: int) -> Tensor:
        """Draw one picture of each caption.

        Args:
            captions: Their features.
            styles: ``(captions,) int64``.
            seed: Of the noise.

        Returns:
            ``(captions, 3, side, side) float32`` in -1 to 1, on the CPU.
        """
        pictures = []
        for start in range(0, len(styles), BATCH):
            rows = slice(start, start + BATCH)
            part = Conditioning(captions.tokens[rows], captions.has_tokens[rows], captions.sentence[rows])
            latents = sample(
                self.denoiser,
                part.to(self._device),
                styles[rows].to(self._device),
                self._shape,
                self._guidance,
                seed * 1_000_003 + start,
            )
            drawn = self._autoencoder.decode(self._autoencoder.denormalise(latents))
            pictures.append(drawn.clamp(-1, 1).cpu())
            log.info("%d of %d pictures drawn", min(start + BATCH, len(styles)), len(styles))
        return torch.cat(pictures)
