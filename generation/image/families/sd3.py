"""Stable Diffusion 3: a transformer over text and picture tokens, trained as a rectified flow."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from generation.image.families.pipeline import PipelineFamily, require_prompt, sides
from generation.image.family import Condition, Defaults, Encoded, Prompt


class StableDiffusion3Family(PipelineFamily):
    """``StableDiffusion3Pipeline``; see ``generation.image.family.Family``.

    Args:
        name: What the model is called.
        pipe: The pipeline.

    Source: Esser et al., "Scaling Rectified Flow Transformers for High-Resolution Image Synthesis", 2024.
    """

    def __init__(self, name: str, pipe: Any) -> None:
        size = sides(pipe.default_sample_size, pipe.vae_scale_factor)
        defaults = Defaults(size, 4, 1.0) if "turbo" in name.lower() else Defaults(size, 28, 7.0)
        grid = pipe.vae_scale_factor * pipe.transformer.config.patch_size
        super().__init__(name, pipe, pipe.transformer, grid, defaults)

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """States of two CLIP encoders and of T5, and the CLIP encoders' summaries."""
        require_prompt(prompt.text)
        guided = prompt.guidance_scale > 1.0
        text, negative, pooled, negative_pooled = self._pipe.encode_prompt(
            prompt=prompt.text,
            prompt_2=None,
            prompt_3=None,
            device=self.device,
            do_classifier_free_guidance=guided,
            negative_prompt=prompt.negative or None,
        )
        condition = {"text": text[0], "pooled": pooled[0]}
        against = {"text": negative[0], "pooled": negative_pooled[0]} if guided else None
        tokens = len(self._pipe.tokenizer(prompt.text, truncation=True, max_length=77).input_ids)
        return Encoded(condition, against, tokens)

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One pass of the transformer."""
        predicted: Tensor = self._denoiser(
            hidden_states=latents.to(self.dtype),
            timestep=timesteps,
            encoder_hidden_states=condition["text"],
            pooled_projections=condition["pooled"],
            return_dict=False,
        )[0]
        return predicted.float()
