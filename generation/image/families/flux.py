"""Flux: a flow transformer over packed latents that takes guidance as an input."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from generation.image.families.pipeline import PipelineFamily, require_prompt, sides
from generation.image.family import Condition, Defaults, Encoded, Prompt, Size


class FluxFamily(PipelineFamily):
    """``FluxPipeline``; see ``generation.image.family.Family``.

    Latents are kept as a picture and packed, two by two, for the transformer alone.

    Args:
        name: What the model is called.
        pipe: The pipeline.

    Source: Black Forest Labs, https://github.com/black-forest-labs/flux
    """

    _packed = 2

    def __init__(self, name: str, pipe: Any) -> None:
        size = sides(pipe.default_sample_size, pipe.vae_scale_factor)
        distilled = not pipe.transformer.config.guidance_embeds
        defaults = Defaults(size, 4, 1.0) if distilled else Defaults(size, 28, 3.5)
        super().__init__(name, pipe, pipe.transformer, pipe.vae_scale_factor * self._packed, defaults)
        self._channels = pipe.transformer.config.in_channels // self._packed**2
        self._takes_guidance = bool(pipe.transformer.config.guidance_embeds)

    @property
    def _patch(self) -> int:
        return self._packed

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """T5's states and CLIP's summary. A negative prompt makes a second row, at the price of a second pass."""
        require_prompt(prompt.text)
        condition = self._row(prompt.text, prompt.guidance_scale)
        # Models that take guidance as an input were not trained to be guided away from something as well.
        guided = prompt.guidance_scale > 1.0 and bool(prompt.negative.strip()) and not self._takes_guidance
        against = self._row(prompt.negative, prompt.guidance_scale) if guided else None
        limit = self._pipe.tokenizer_2.model_max_length
        tokens = len(self._pipe.tokenizer_2(prompt.text, truncation=True, max_length=min(limit, 512)).input_ids)
        return Encoded(condition, against, tokens)

    def set_timesteps(self, scheduler: Any, steps: int, size: Size) -> None:
        """Equal steps, shifted for the size."""
        options: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting", False):
            options["mu"] = self._shift(scheduler.config, size)
        if not scheduler.config.get("use_flow_sigmas", False):
            options["sigmas"] = np.linspace(1.0, 1 / steps, steps)
        scheduler.set_timesteps(steps, **options)

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One pass of the transformer."""
        batch, channels, height, width = latents.shape
        rows, columns = height // self._packed, width // self._packed
        predicted: Tensor = self._denoiser(
            hidden_states=_pack(latents).to(self.dtype),
            timestep=(timesteps / 1000).to(self.dtype),
            guidance=condition.get("guidance"),
            pooled_projections=condition["pooled"],
            encoder_hidden_states=condition["text"],
            txt_ids=torch.zeros(condition["text"].shape[1], 3, device=latents.device, dtype=self.dtype),
            img_ids=self._places(rows, columns),
            return_dict=False,
        )[0]
        grid = predicted.view(batch, rows, columns, channels, self._packed, self._packed)
        return grid.permute(0, 3, 1, 4, 2, 5).reshape(latents.shape).float()

    def _row(self, text: str, guidance_scale: float) -> Condition:
        states, pooled, _ = self._pipe.encode_prompt(prompt=text, prompt_2=None, device=self.device)
        row = {"text": states[0], "pooled": pooled[0]}
        if self._takes_guidance:
            row["guidance"] = torch.tensor(guidance_scale, device=self.device)
        return row

    def _places(self, rows: int, columns: int) -> Tensor:
        places = torch.zeros(rows, columns, 3)
        places[..., 1] += torch.arange(rows)[:, None]
        places[..., 2] += torch.arange(columns)
        return places.reshape(rows * columns, 3).to(self.device, self.dtype)


def _pack(latents: Tensor) -> Tensor:
    batch, channels, height, width = latents.shape
    grid = latents.view(batch, channels, height // 2, 2, width // 2, 2)
    return grid.permute(0, 2, 4, 1, 3, 5).reshape(batch, (height // 2) * (width // 2), channels * 4)
