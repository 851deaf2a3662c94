"""PixArt: diffusion transformers that see a T5 encoder's states by cross-attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generation.image.families.pipeline import PipelineFamily, require_prompt, sides
from generation.image.family import Condition, Defaults, Encoded, Prompt


class PixArtFamily(PipelineFamily):
    """``PixArtAlphaPipeline`` and ``PixArtSigmaPipeline``; see ``generation.image.family.Family``.

    Args:
        name: What the model is called.
        pipe: The pipeline.

    Source: Chen et al., "PixArt-alpha", 2023, and "PixArt-Sigma", 2024; Peebles and Xie, "Scalable Diffusion Models
    with Transformers", 2023.
    """

    def __init__(self, name: str, pipe: Any) -> None:
        config = pipe.transformer.config
        size = sides(config.sample_size, pipe.vae_scale_factor)
        few = "LCM" in type(pipe.scheduler).__name__ or "lcm" in name.lower()
        defaults = Defaults(size, 4, 1.0) if few else Defaults(size, 20, 4.5)
        super().__init__(name, pipe, pipe.transformer, pipe.vae_scale_factor * config.patch_size, defaults)
        # Only the first models of 1024 px are conditioned on the size.
        self._sees_size = "Alpha" in type(pipe).__name__ and config.sample_size == 128
        self._tokens = 300 if "Sigma" in type(pipe).__name__ else 120

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt that is read."""
        return self._tokens

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """T5's hidden states and which of them count."""
        require_prompt(prompt.text)
        guided = prompt.guidance_scale > 1.0
        text, mask, negative, negative_mask = self._pipe.encode_prompt(
            prompt.text, guided, negative_prompt=prompt.negative, device=self.device, clean_caption=False
        )
        shared: dict[str, Tensor] = {}
        if self._sees_size:
            height, width = prompt.size.height_px, prompt.size.width_px
            shared["resolution"] = torch.tensor([height, width], dtype=self.dtype, device=self.device)
            shared["aspect_ratio"] = torch.tensor([height / width], dtype=self.dtype, device=self.device)
        condition = {"text": text[0], "mask": mask[0], **shared}
        against = {"text": negative[0], "mask": negative_mask[0], **shared} if guided else None
        return Encoded(condition, against, int(mask[0].sum()))

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One pass of the transformer; what it says of its own uncertainty is left out."""
        predicted: Tensor = self._denoiser(
            latents.to(self.dtype),
            encoder_hidden_states=condition["text"],
            encoder_attention_mask=condition["mask"],
            timestep=timesteps,
            added_cond_kwargs={name: condition.get(name) for name in ("resolution", "aspect_ratio")},
            return_dict=False,
        )[0]
        return predicted[:, : latents.shape[1]].float()
