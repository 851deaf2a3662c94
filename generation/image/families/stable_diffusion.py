"""Stable Diffusion: UNets that see the prompt by cross-attention (1.5, 2.1, turbo), and the larger XL."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from generation.image.families.pipeline import PipelineFamily, require_prompt, sides
from generation.image.family import Condition, Defaults, Encoded, Prompt


class StableDiffusionFamily(PipelineFamily):
    """``StableDiffusionPipeline``; see ``generation.image.family.Family``.

    Args:
        name: What the model is called.
        pipe: The pipeline.

    Source: Rombach et al., "High-Resolution Image Synthesis with Latent Diffusion Models", 2022.
    """

    def __init__(self, name: str, pipe: Any) -> None:
        # The layout that convolutions compute in: otherwise each of them would rearrange its input.
        unet = pipe.unet.to(memory_format=torch.channels_last)
        super().__init__(name, pipe, unet, _grid_px(pipe), _defaults(name, pipe))

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """CLIP's hidden states."""
        require_prompt(prompt.text)
        positive, negative = self._pipe.encode_prompt(
            prompt.text, self.device, 1, self._guided(prompt), prompt.negative or None
        )
        guidance = self._guidance_embedding(prompt)
        rows = [None if text is None else {"text": text[0], **guidance} for text in (positive, negative)]
        return Encoded(rows[0] or {}, rows[1], _tokens(self._pipe, prompt.text))

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One pass of the UNet."""
        predicted: Tensor = self._denoiser(
            latents.to(self.dtype),
            timesteps,
            encoder_hidden_states=condition["text"],
            timestep_cond=condition.get("guidance"),
            added_cond_kwargs=self._added(condition),
            return_dict=False,
        )[0]
        return predicted.float()

    def _added(self, condition: Condition) -> dict[str, Tensor] | None:
        """What the UNet takes beside text and time."""
        return None if "pooled" not in condition else {"text_embeds": condition["pooled"], "time_ids": condition["ids"]}

    def _guided(self, prompt: Prompt) -> bool:
        return prompt.guidance_scale > 1.0 and self._denoiser.config.time_cond_proj_dim is None

    def _guidance_embedding(self, prompt: Prompt) -> Condition:
        """Consistency models take guidance as an input.

        Source: Luo et al., "Latent Consistency Models", 2023.
        """
        width = self._denoiser.config.time_cond_proj_dim
        if width is None:
            return {}
        scale = torch.tensor([prompt.guidance_scale - 1])
        embedding: Tensor = self._pipe.get_guidance_scale_embedding(scale, embedding_dim=width)
        return {"guidance": embedding[0].to(self.device, self.dtype)}


class StableDiffusionXLFamily(StableDiffusionFamily):
    """``StableDiffusionXLPipeline``: two text encoders, and the size as a condition.

    Source: Podell et al., "SDXL", 2023.
    """

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """Hidden states of both encoders side by side, and the second's summary."""
        require_prompt(prompt.text)
        guided = self._guided(prompt)
        positive, negative, pooled, negative_pooled = self._pipe.encode_prompt(
            prompt=prompt.text,
            device=self.device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=guided,
            negative_prompt=prompt.negative or None,
        )
        size = (prompt.size.height_px, prompt.size.width_px)
        ids = torch.tensor([*size, 0, 0, *size], dtype=self.dtype, device=self.device)
        shared = {"ids": ids, **self._guidance_embedding(prompt)}
        condition = {"text": positive[0], "pooled": pooled[0], **shared}
        against = {"text": negative[0], "pooled": negative_pooled[0], **shared} if guided else None
        return Encoded(condition, against, _tokens(self._pipe, prompt.text))


def _tokens(pipe: Any, text: str) -> int:
    limit = pipe.tokenizer.model_max_length
    return len(pipe.tokenizer(text, truncation=True, max_length=limit).input_ids)


def _grid_px(pipe: Any) -> int:
    """The UNet halves the latents at each level but the last; odd sides would not come back."""
    return int(pipe.vae_scale_factor * 2 ** (len(pipe.unet.config.block_out_channels) - 1))


def _defaults(name: str, pipe: Any) -> Defaults:
    size = sides(pipe.unet.config.sample_size, pipe.vae_scale_factor)
    if pipe.unet.config.time_cond_proj_dim is not None or "LCM" in type(pipe.scheduler).__name__:
        return Defaults(size, 4, 8.0 if pipe.unet.config.time_cond_proj_dim is not None else 1.0)
    # Distilled models say so in their name only.
    if any(word in name.lower() for word in ("turbo", "lightning", "hyper")):
        return Defaults(size, 4, 1.0)
    return Defaults(size, 30, 7.5 if "XL" not in type(pipe).__name__ else 5.0)
