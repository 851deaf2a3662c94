"""What families of diffusers' pipelines have in common: sizes, timesteps, autoencoder, previews."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

from generation.errors import InvalidRequestError
from generation.image.family import Defaults, Posterior, Prediction, Size
from generation.image.samplers import prediction_of

#: Farther than this from its own number of pixels a model repeats itself, and its attention needs too much memory.
_MOST_PIXELS = 4.0
_LEAST_PIXELS = 1 / 4
#: Latents of the picture that a latents-to-colours map is fitted on.
_SKETCH_SIDE = 24


class PipelineFamily:
    """A text-to-image pipeline, taken apart; subclasses know its denoiser and its text encoders.

    Args:
        name: What the model is called.
        pipe: A loaded ``DiffusionPipeline`` on its device.
        denoiser: Its UNet or transformer.
        grid_px: Sides of pictures are multiples of it.
        defaults: What a request takes where it says nothing.
    """

    styles: tuple[str, ...] = ()

    def __init__(self, name: str, pipe: Any, denoiser: Any, grid_px: int, defaults: Defaults) -> None:
        self.name, self._pipe, self._denoiser = name, pipe, denoiser
        self._vae: Any = pipe.vae
        self._grid_px = grid_px
        self.defaults = defaults
        self.scheduler: Any = pipe.scheduler
        self.prediction: Prediction = prediction_of(pipe.scheduler)
        self.device: torch.device = denoiser.device
        self.dtype: torch.dtype = denoiser.dtype
        self.latent_scale: int = pipe.vae_scale_factor
        self._channels: int = denoiser.config.in_channels
        self.decode_side: int = max(defaults.size.width_px, defaults.size.height_px) // self.latent_scale
        if self.dtype == torch.float16 and self._vae.config.get("force_upcast", False):
            self._vae.to(torch.float32)  # its activations leave float16's range
        self._colours: Tensor | None = None

    @property
    def prompt_tokens(self) -> int:
        """Longest prompt that is read."""
        return int(getattr(self._pipe, "tokenizer_max_length", 0) or self._pipe.tokenizer.model_max_length)

    def fit(self, size: Size) -> Size:
        """Any size whose sides are multiples of the grid, not too far from the model's own."""
        grid = self._grid_px
        if size.width_px % grid or size.height_px % grid or not size.pixels:
            near = Size(*(max(grid, round(side / grid) * grid) for side in (size.width_px, size.height_px)))
            raise InvalidRequestError(
                f"This model makes no pictures of {size.width_px}x{size.height_px} pixels: sides are multiples of "
                f"{grid}, for example {near.width_px}x{near.height_px}."
            )
        own = self.defaults.size.pixels
        if not _LEAST_PIXELS * own <= size.pixels <= _MOST_PIXELS * own:
            raise InvalidRequestError(
                f"{size.width_px}x{size.height_px} pixels are too far from what this model was made for, "
                f"{self.defaults.size.width_px}x{self.defaults.size.height_px}: between a quarter and four times as "
                "many are possible."
            )
        return size

    def near(self, aspect: float) -> Size:
        """The multiples of the grid nearest to a ratio at the model's own number of pixels."""
        own, grid = self.defaults.size.pixels, self._grid_px
        width = max(grid, round(math.sqrt(own * aspect) / grid) * grid)
        height = max(grid, round(math.sqrt(own / aspect) / grid) * grid)
        return Size(width, height)

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        return self._channels, size.height_px // self.latent_scale, size.width_px // self.latent_scale

    def set_timesteps(self, scheduler: Any, steps: int, size: Size) -> None:
        """The schedule as the pipeline makes it, shifted for the size where the scheduler asks for that."""
        options: dict[str, Any] = {}
        if scheduler.config.get("use_dynamic_shifting", False):
            options["mu"] = self._shift(scheduler.config, size)
        scheduler.set_timesteps(steps, **options)

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels."""
        config = self._vae.config
        scaled = latents / config.scaling_factor
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, deviation = (
                torch.tensor(config[name], device=latents.device).view(1, -1, 1, 1)
                for name in ("latents_mean", "latents_std")
            )
            scaled = scaled * deviation + mean
        scaled = scaled + (config.get("shift_factor") or 0.0)
        pixels: Tensor = self._vae.decode(scaled.to(self._vae.dtype), return_dict=False)[0].float()
        return pixels

    def encode(self, pixels: Tensor) -> Posterior:
        """Pixels to latents: the autoencoder's posterior, in the denoiser's scale."""
        config = self._vae.config
        encoded = self._vae.encode(pixels.to(self._vae.dtype))
        scale, shift = config.scaling_factor, config.get("shift_factor") or 0.0
        if not hasattr(encoded, "latent_dist"):  # a tiny autoencoder has no posterior
            return Posterior((encoded.latents.float() - shift) * scale, None)
        posterior = encoded.latent_dist
        return Posterior((posterior.mean.float() - shift) * scale, posterior.std.float() * scale)

    def sketch(self, latents: Tensor) -> Tensor:
        """Colours by a linear map of the latents' channels, fitted once on a picture of known colours."""
        if self._colours is None:
            self._colours = self._fitted_colours()
        values = torch.cat([latents.float(), torch.ones_like(latents[:, :1], dtype=torch.float32)], dim=1)
        colours = torch.einsum("bchw,cr->brhw", values, self._colours)
        return F.interpolate(colours.clamp(-1, 1), scale_factor=2, mode="bilinear")

    def _fitted_colours(self) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((1, 3, 6, 6), generator=generator).to(self.device) * 2 - 1
        side = _SKETCH_SIDE * self.latent_scale
        picture = F.interpolate(coarse, (side, side), mode="bicubic").clamp(-1, 1)
        latents = self.encode(picture).mean
        values = torch.cat([latents, torch.ones_like(latents[:, :1])], dim=1).flatten(2)[0].T
        wanted = F.interpolate(picture, latents.shape[-2:], mode="area").flatten(2)[0].T
        # A little ridge: channels that say nothing about colour shall not be amplified.
        square = values.T @ values + 1e-3 * len(values) * torch.eye(values.shape[1], device=self.device)
        colours: Tensor = torch.linalg.solve(square.cpu(), (values.T @ wanted).cpu())
        return colours.to(self.device)

    def _shift(self, config: Any, size: Size) -> float:
        """How much the schedule leans towards noise at a size.

        Source: Esser et al., "Scaling Rectified Flow Transformers", 2024; ``calculate_shift`` of diffusers.
        """
        _, rows, columns = self.latent_shape(size)
        patch = self._patch
        tokens = (rows // patch) * (columns // patch)
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
        return float(least + (most - least) * (tokens - low) / (high - low))

    @property
    def _patch(self) -> int:
        """Latents of a side of what the denoiser takes as one token."""
        return int(self._denoiser.config.patch_size)


def sides(sample_size: int | tuple[int, int] | list[int], scale: int) -> Size:
    """A size in pixels from a configuration's size in latents: one side, or height and width."""
    height, width = (sample_size, sample_size) if isinstance(sample_size, int) else tuple(sample_size)
    return Size(width * scale, height * scale)


def require_prompt(text: str) -> None:
    """Refuse a prompt that says nothing.

    Raises:
        InvalidRequestError: It is empty.
    """
    if not text.strip():
        raise InvalidRequestError("The prompt is empty: say what the picture is to show.")
