"""The denoiser: a transformer over latents, text, style and time as one sequence of tokens."""

from __future__ import annotations

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from generation.image.blocks import Block, patchify, sinusoids, unpatchify

TIME_FEATURES = 128


class TokenDenoiser(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name the configuration file
    """Predicts the velocity of rectified flow; saved and loaded like any model of diffusers.

    The sequence is: text tokens, the sentence, the style, the time, then one token for each latent. Conditions are
    tokens, and not modulations of every layer (adaLN), which would cost a CPU more than the attention does.

    Args:
        latent_px: Side of the latent grid.
        latent_channels: Channels of a latent.
        width: Channels of a token.
        layers: Number of blocks.
        heads: Attention heads; divides ``width``.
        text_tokens: Text tokens of the sequence.
        text_width: Features of a text token.
        sentence_width: Features of the sentence.
        styles: Number of styles; index ``styles`` means any.

    Source: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023; Bao et al., "All are Worth Words"
    (U-ViT: conditions as tokens), 2023; Liu et al., "Flow Straight and Fast", 2023.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers leaves it unannotated
    def __init__(
        self,
        latent_px: int = 8,
        latent_channels: int = 24,
        width: int = 384,
        layers: int = 6,
        heads: int = 6,
        text_tokens: int = 16,
        text_width: int = 384,
        sentence_width: int = 512,
        styles: int = 8,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers leaves it unannotated
        self.any_style = styles
        self.embed_latent = nn.Linear(latent_channels, width)
        self.latent_position = nn.Parameter(torch.randn(latent_px * latent_px, width) * 0.5)
        self.embed_text = nn.Linear(text_width, width)
        self.text_position = nn.Parameter(torch.randn(text_tokens, width) * 0.1)
        self.embed_pooled_text = nn.Linear(text_width, width, bias=False)
        self.embed_sentence = nn.Linear(sentence_width, width)
        self.embed_style = nn.Embedding(styles + 1, width)
        self.embed_time = nn.Sequential(nn.Linear(TIME_FEATURES, width), nn.SiLU(), nn.Linear(width, width))
        self.no_text = nn.Parameter(torch.randn(text_tokens, text_width) * 0.1)
        self.no_sentence = nn.Parameter(torch.randn(sentence_width) * 0.04)
        self.blocks = nn.Sequential(*(Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.to_velocity = nn.Linear(width, latent_channels)
        for parameter in self.to_velocity.parameters():
            nn.init.zeros_(parameter)

    def forward(
        self,
        latents: Tensor,
        sigma: Tensor,
        text: Tensor,
        sentence: Tensor,
        style: Tensor,
        *,
        text_dropped: Tensor,
        sentence_dropped: Tensor,
    ) -> Tensor:
        """Predict ``noise - clean`` for ``latents = (1 - sigma) * clean + sigma * noise``.

        Args:
            latents: ``(batch, latent_channels, latent_px, latent_px) float32``, normalised.
            sigma: ``(batch,) float32``, the share of noise, 0 to 1; each sample has its own.
            text: ``(batch, text_tokens, text_width)``, token features; zeros beyond the text's end.
            sentence: ``(batch, sentence_width)``, of unit length.
            style: ``(batch,) int64``.
            text_dropped: ``(batch,) bool``: take the learned stand-in for the text tokens instead.
            sentence_dropped: ``(batch,) bool``: likewise for the sentence.

        Returns:
            The velocity, ``latents``' shape, float32.
        """
        dtype = self.latent_position.dtype
        text = torch.where(text_dropped[:, None, None], self.no_text, text.to(dtype))
        # A unit vector of 512 features has features of about 0.04; the layers expect about 1.
        sentence = torch.where(sentence_dropped[:, None], self.no_sentence, sentence.to(dtype)) * 20.0
        time_token = self.embed_time(sinusoids(sigma * 1000.0, TIME_FEATURES).to(dtype))
        style_token = self.embed_style(style)
        sentence_token = self.embed_sentence(sentence)
        everywhere = time_token + style_token + sentence_token + self.embed_pooled_text(text.mean(dim=1) * 3.0)
        latent_tokens = self.embed_latent(patchify(latents.to(dtype), 1)) + self.latent_position + everywhere[:, None]
        single = torch.stack([sentence_token, style_token, time_token], dim=1)
        sequence = torch.cat([self.embed_text(text) + self.text_position, single, latent_tokens], dim=1)
        denoised = self.blocks(sequence)[:, -latent_tokens.shape[1] :]
        return unpatchify(self.to_velocity(self.norm(denoised)), 1, latents.shape[-2]).float()
