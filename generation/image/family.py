"""What the engine needs of a model: one small protocol that every family of models is adapted to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

#: What one row of the denoiser is conditioned on, by the family's own names; tensors without a batch dimension.
Condition = Mapping[str, Tensor]
#: What the denoiser predicts; decides which samplers suit.
Prediction = Literal["epsilon", "v_prediction", "sample", "flow_prediction"]


@dataclass(frozen=True, slots=True)
class Size:
    """Of a picture."""

    width_px: int
    height_px: int

    @property
    def pixels(self) -> int:
        """How many."""
        return self.width_px * self.height_px


@dataclass(frozen=True, slots=True)
class Defaults:
    """What a request takes where it says nothing.

    Args:
        size: At which the model draws best.
        num_inference_steps: Denoising steps.
        guidance_scale: Classifier-free guidance, or the guidance that the model takes as an input; 1 for none.
    """

    size: Size
    num_inference_steps: int
    guidance_scale: float


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a picture is to show.

    Args:
        text: As the user wrote it.
        negative: What it is not to show; may be empty.
        size: Some families are conditioned on it.
        style: One of the family's styles, or None.
        guidance_scale: Above 1 asks for classifier-free guidance where the family does it.
    """

    text: str
    negative: str
    size: Size
    style: str | None
    guidance_scale: float


@dataclass(frozen=True, slots=True)
class Encoded:
    """A prompt as the denoiser sees it.

    Args:
        condition: Of the row that follows the prompt.
        negative: Of the row that guidance moves away from; None where one row is enough.
        tokens: Length of the prompt.
    """

    condition: Condition
    negative: Condition | None
    tokens: int

    @property
    def rows(self) -> tuple[Condition, ...]:
        """Rows of one picture in a forward pass."""
        return (self.condition,) if self.negative is None else (self.negative, self.condition)


@dataclass(frozen=True, slots=True)
class Posterior:
    """A picture as latents, in the denoiser's scale.

    Args:
        mean: ``(1, channels, rows, columns) float32``.
        deviation: Likewise, to draw from; None where the mean is what is meant.
    """

    mean: Tensor
    deviation: Tensor | None


class Family(Protocol):
    """A model that draws, step by step. All tensors are on its device; latents are float32 in the denoiser's scale."""

    @property
    def name(self) -> str:
        """What the model is called."""
        ...

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """In which numbers."""
        ...

    @property
    def defaults(self) -> Defaults:
        """What a request takes where it says nothing."""
        ...

    @property
    def scheduler(self) -> Any:
        """The model's own noise scheduler, configured; copied for each picture, never stepped itself."""
        ...

    @property
    def prediction(self) -> Prediction:
        """What ``denoise`` returns."""
        ...

    @property
    def styles(self) -> tuple[str, ...]:
        """Names of styles that a request may ask for."""
        ...

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt that is read."""
        ...

    @property
    def latent_scale(self) -> int:
        """Pixels of a picture's side for each latent."""
        ...

    @property
    def decode_side(self) -> int:
        """Side of the largest square of latents that is decoded in one piece."""
        ...

    def fit(self, size: Size) -> Size:
        """The size at which the model draws so that the picture can be made ``size``.

        Raises:
            InvalidRequestError: It cannot; the message says which sizes can be had.
        """
        ...

    def near(self, aspect: float) -> Size:
        """The size of this ratio of width to height at about the model's own number of pixels.

        Raises:
            InvalidRequestError: The model has no such size.
        """
        ...

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Channels, rows and columns of one picture's latents."""
        ...

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """Run the text encoders."""
        ...

    def set_timesteps(self, scheduler: Any, steps: int, size: Size) -> None:
        """Prepare a copy of a scheduler for a picture."""
        ...

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One forward pass for many pictures at once.

        Args:
            latents: ``(rows, channels, height, width) float32``, scaled by each row's scheduler.
            timesteps: ``(rows,) float32``, each row's own.
            condition: Of all rows: tensors with a batch dimension.

        Returns:
            The prediction, ``latents``' shape, float32.
        """
        ...

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels: ``(batch, 3, height, width) float32``, about -1 to 1."""
        ...

    def encode(self, pixels: Tensor) -> Posterior:
        """Pixels ``(1, 3, height, width) float32`` in -1 to 1 to latents."""
        ...

    def sketch(self, latents: Tensor) -> Tensor:
        """A cheap picture of latents for previews: ``(batch, 3, height, width) float32``, about -1 to 1."""
        ...
