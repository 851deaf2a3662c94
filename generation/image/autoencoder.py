"""A variational autoencoder of transformer blocks over patches: pictures to a small grid of latents and back."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from generation.image.blocks import Block, patchify, unpatchify


class PatchAutoencoder(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name the configuration file
    """KL autoencoder; saved and loaded like any model of diffusers.

    Every patch of ``patch_px`` becomes one latent of ``latent_channels``. Attention makes patches agree; a small
    convolution at the end smooths their borders. On a CPU this trains several times faster than convolutions do.

    Args:
        picture_px: Side of the pictures.
        patch_px: Side of a patch; divides ``picture_px``.
        latent_channels: Channels of a latent.
        encoder_width: Channels of the encoder's tokens.
        encoder_layers: Blocks of the encoder.
        decoder_width: Channels of the decoder's tokens.
        decoder_layers: Blocks of the decoder.
        heads: Attention heads of both.

    Source: Kingma and Welling, "Auto-Encoding Variational Bayes", 2014; Rombach et al., "High-Resolution Image
    Synthesis with Latent Diffusion Models", 2022.
    """

    # Scaling for the denoiser, measured on the training pictures after the autoencoder's training.
    latents_mean: Tensor
    latents_std: Tensor

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers leaves it unannotated
    def __init__(
        self,
        picture_px: int = 64,
        patch_px: int = 8,
        latent_channels: int = 24,
        encoder_width: int = 192,
        encoder_layers: int = 3,
        decoder_width: int = 256,
        decoder_layers: int = 4,
        heads: int = 4,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers leaves it unannotated
        self.patch_px = patch_px
        patches, values = (picture_px // patch_px) ** 2, patch_px * patch_px * 3
        self.embed = nn.Linear(values, encoder_width)
        self.encoder_position = nn.Parameter(torch.randn(patches, encoder_width) * 0.02)
        self.encoder = nn.Sequential(*(Block(encoder_width, heads) for _ in range(encoder_layers)))
        self.to_moments = nn.Linear(encoder_width, 2 * latent_channels)
        self.from_latent = nn.Linear(latent_channels, decoder_width)
        self.decoder_position = nn.Parameter(torch.randn(patches, decoder_width) * 0.02)
        self.decoder = nn.Sequential(*(Block(decoder_width, heads) for _ in range(decoder_layers)))
        self.to_pixels = nn.Linear(decoder_width, values)
        self.smooth = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 3, padding=1))
        for parameter in self.smooth[2].parameters():
            nn.init.zeros_(parameter)
        self.register_buffer("latents_mean", torch.zeros(latent_channels))
        self.register_buffer("latents_std", torch.ones(latent_channels))

    def encode(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Encode pictures.

        Args:
            pictures: ``(batch, 3, picture_px, picture_px)`` in -1 to 1, of the weights' dtype.

        Returns:
            Mean and log variance of the latents, each ``(batch, latent_channels, rows, columns) float32``.
        """
        tokens = self.encoder(self.embed(patchify(pictures, self.patch_px)) + self.encoder_position)
        rows = pictures.shape[-2] // self.patch_px
        moments = unpatchify(self.to_moments(tokens).float(), 1, rows)
        mean, log_variance = moments.chunk(2, dim=1)
        return mean, log_variance.clamp(-12.0, 4.0)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents.

        Args:
            latents: ``(batch, latent_channels, rows, columns)``, of the weights' dtype.

        Returns:
            ``(batch, 3, rows * patch_px, columns * patch_px)``, about -1 to 1, of the weights' dtype.
        """
        tokens = self.from_latent(patchify(latents, 1)) + self.decoder_position
        pictures = unpatchify(self.to_pixels(self.decoder(tokens)), self.patch_px, latents.shape[-2])
        smooth: Tensor = pictures + self.smooth(pictures)
        return smooth

    def normalise(self, latents: Tensor) -> Tensor:
        """Scale latents so that over the training pictures each channel has mean 0 and variance 1."""
        return (latents - self.latents_mean[:, None, None]) / self.latents_std[:, None, None]

    def denormalise(self, latents: Tensor) -> Tensor:
        """Undo ``normalise``."""
        return latents * self.latents_std[:, None, None] + self.latents_mean[:, None, None]
