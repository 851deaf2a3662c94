"""DiT: a diffusion transformer that draws one of the classes it was trained on, by the class's name."""

from __future__ import annotations

import difflib
from typing import Any

import torch
from torch import Tensor

from generation.errors import InvalidRequestError
from generation.image.families.pipeline import PipelineFamily, require_prompt, sides
from generation.image.family import Condition, Defaults, Encoded, Prompt, Size


class DiTFamily(PipelineFamily):
    """``DiTPipeline``; see ``generation.image.family.Family``. The prompt is the name of a class.

    Args:
        name: What the model is called.
        pipe: The pipeline.

    Source: Peebles and Xie, "Scalable Diffusion Models with Transformers", 2023.
    """

    prompt_tokens = 1

    def __init__(self, name: str, pipe: Any) -> None:
        pipe.vae_scale_factor = 2 ** (len(pipe.vae.config.block_out_channels) - 1)
        size = sides(pipe.transformer.config.sample_size, pipe.vae_scale_factor)
        super().__init__(name, pipe, pipe.transformer, size.width_px, Defaults(size, 30, 4.0))
        self._labels = {label.strip().lower(): number for label, number in pipe.labels.items()}
        self._nothing = pipe.transformer.config.num_embeds_ada_norm

    def near(self, aspect: float) -> Size:
        """Square, always."""
        if abs(aspect - 1) > 0.01:
            raise InvalidRequestError("This model draws square pictures only: leave the aspect ratio at 1:1.")
        return self.defaults.size

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """The class's number."""
        require_prompt(prompt.text)
        wanted = prompt.text.strip().lower()
        if wanted not in self._labels:
            close = difflib.get_close_matches(wanted, self._labels, n=3, cutoff=0.5) or list(self._labels)[:3]
            raise InvalidRequestError(f"This model draws things by name only, for example {', '.join(close)}.")
        against = self._row(self._nothing) if prompt.guidance_scale > 1.0 else None
        return Encoded(self._row(self._labels[wanted]), against, 1)

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One pass of the transformer; what it says of its own uncertainty is left out."""
        predicted: Tensor = self._denoiser(
            latents.to(self.dtype), timestep=timesteps, class_labels=condition["label"], return_dict=False
        )[0]
        return predicted[:, : latents.shape[1]].float()

    def _row(self, label: int) -> Condition:
        return {"label": torch.tensor(label, device=self.device)}
