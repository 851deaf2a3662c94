"""The embedded model: icons of 64 px, drawn from English or Chinese."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from generation.errors import InvalidRequestError, ModelCorruptError, ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.conditioning import TEXT_TOKENS, Conditioning
from generation.image.denoiser import TokenDenoiser
from generation.image.family import Condition, Defaults, Encoded, Posterior, Prediction, Prompt, Size

_LOG = logging.getLogger("palaver.image.embedded")

#: Class that ``model_index.json`` of such a model names.
PIPELINE = "PalaverIconPipeline"
#: A picture as it is drawn is small: it is shown enlarged by this.
_SHOWN_ENLARGEMENT = 4
_LARGEST_ENLARGEMENT = 16
_STEPS = 16
_GUIDANCE = 3.0

TextEncoder = Callable[[Sequence[str]], Conditioning]


class EmbeddedFamily:
    """``TokenDenoiser`` on the latents of ``PatchAutoencoder``; see ``generation.image.family.Family``.

    It draws at one size, and larger pictures are enlargements of that.

    Args:
        name: What the model is called.
        autoencoder: In evaluation mode, on the denoiser's device.
        denoiser: In evaluation mode.
        scheduler: A ``FlowMatchEulerDiscreteScheduler``.
        styles: Words for the denoiser's styles, in their order.
        encode_text: The text encoders.
    """

    prediction: Prediction = "flow_prediction"
    prompt_tokens = TEXT_TOKENS

    def __init__(
        self,
        name: str,
        autoencoder: PatchAutoencoder,
        denoiser: TokenDenoiser,
        scheduler: Any,
        styles: tuple[str, ...],
        encode_text: TextEncoder,
    ) -> None:
        self.name, self.scheduler, self.styles = name, scheduler, styles
        self._autoencoder, self._denoiser, self._encode_text = autoencoder, denoiser, encode_text
        self.device, self.dtype = denoiser.latent_position.device, denoiser.latent_position.dtype
        config: Any = autoencoder.config
        self.latent_scale: int = autoencoder.patch_px
        self.decode_side: int = config.picture_px // autoencoder.patch_px
        self._channels: int = config.latent_channels
        self._drawn = Size(config.picture_px, config.picture_px)
        shown = config.picture_px * _SHOWN_ENLARGEMENT
        self.defaults = Defaults(Size(shown, shown), _STEPS, _GUIDANCE)

    def fit(self, size: Size) -> Size:
        """The one size at which it draws; ``size`` has to be an enlargement of it."""
        side = self._drawn.width_px
        possible = [side * 2**power for power in range(_LARGEST_ENLARGEMENT.bit_length())]
        if size.width_px != size.height_px or size.width_px not in possible:
            sides = ", ".join(f"{side}x{side}" for side in possible)
            raise InvalidRequestError(
                f"This model makes no pictures of {size.width_px}x{size.height_px} pixels: choose one of {sides}."
            )
        return self._drawn

    def near(self, aspect: float) -> Size:
        """Square, always."""
        if abs(aspect - 1) > 0.01:
            raise InvalidRequestError("This model draws square pictures only: leave the aspect ratio at 1:1.")
        return self.defaults.size

    def latent_shape(self, size: Size) -> tuple[int, int, int]:
        """Channels, rows and columns."""
        return self._channels, size.height_px // self.latent_scale, size.width_px // self.latent_scale

    def encode_prompt(self, prompt: Prompt) -> Encoded:
        """Features of the prompt and, for guidance, of the negative one or of nothing."""
        if not prompt.text.strip():
            raise InvalidRequestError("The prompt is empty: say what the picture is to show.")
        guided = prompt.guidance_scale > 1.0
        negative = prompt.negative.strip()
        features = self._encode_text([prompt.text, negative] if guided and negative else [prompt.text])
        style = self.styles.index(prompt.style) if prompt.style else self._denoiser.any_style
        condition = self._row(features, 0, style)
        tokens = int(features.tokens[0].any(dim=-1).sum()) or len(prompt.text)
        if not guided:
            return Encoded(condition, None, tokens)
        if negative:
            return Encoded(condition, self._row(features, 1, self._denoiser.any_style), tokens)
        nothing = torch.tensor(True, device=self.device)
        without = {"text_dropped": nothing, "sentence_dropped": nothing}
        return Encoded(
            condition,
            {**condition, **without, "style": torch.full_like(condition["style"], self._denoiser.any_style)},
            tokens,
        )

    def set_timesteps(self, scheduler: Any, steps: int, size: Size) -> None:  # noqa: ARG002 - it has but one size
        """Equal steps from noise to picture, as in training's own sampling."""
        if type(scheduler).__name__ == "FlowMatchEulerDiscreteScheduler":
            scheduler.set_timesteps(sigmas=[1 - step / steps for step in range(steps)])
        else:
            scheduler.set_timesteps(steps)

    def denoise(self, latents: Tensor, timesteps: Tensor, condition: Condition) -> Tensor:
        """One pass of the denoiser."""
        levels = self.scheduler.config.num_train_timesteps
        velocity: Tensor = self._denoiser(latents, timesteps / levels, **condition)
        return velocity

    def decode(self, latents: Tensor) -> Tensor:
        """Latents to pixels."""
        clean = self._autoencoder.denormalise(latents)
        return self._autoencoder.decode(clean.to(self.dtype)).float()

    def encode(self, pixels: Tensor) -> Posterior:
        """Pixels to latents: the mean, as in training."""
        mean, _ = self._autoencoder.encode(pixels.to(self.dtype))
        return Posterior(self._autoencoder.normalise(mean), None)

    def sketch(self, latents: Tensor) -> Tensor:
        """The decoder itself: it costs a tenth of a denoising step."""
        return self.decode(latents)

    def _row(self, features: Conditioning, index: int, style: int) -> Condition:
        device = self.device
        return {
            "text": features.tokens[index].to(device),
            "sentence": features.sentence[index].to(device),
            "style": torch.tensor(style, device=device),
            "text_dropped": (~features.has_tokens[index]).to(device),
            "sentence_dropped": torch.tensor(False, device=device),
        }


def load_embedded(
    name: str, directory: Path, device: torch.device, dtype: torch.dtype, text_encoder: Callable[[], TextEncoder]
) -> EmbeddedFamily:
    """Load a model in the layout that training exports: ``vae/``, ``transformer/``, ``scheduler/``, ``training.json``.

    Args:
        name: What the model is called.
        directory: Where it lies.
        device: Where it is to compute.
        dtype: In which numbers.
        text_encoder: Makes the text encoder, once the rest is here.

    Raises:
        ModelNotFoundError: There is none.
        ModelCorruptError: A part of it cannot be read.
    """
    import diffusers  # its attributes are imported when they are asked for

    if not (directory / "model_index.json").is_file():
        raise ModelNotFoundError(
            f"There is no image model in {directory}. Set the image model to a hub model (org/name) or a directory, "
            "or train the embedded one: python -m generation.learning.training cpu"
        )
    try:
        parts: Any = {"dtype": dtype, "use_safetensors": True, "local_files_only": True}
        autoencoder = PatchAutoencoder.from_pretrained(directory / "vae", **parts)
        denoiser = TokenDenoiser.from_pretrained(directory / "transformer", **parts)
        schedulers: Any = diffusers.FlowMatchEulerDiscreteScheduler
        scheduler = schedulers.from_pretrained(directory / "scheduler", local_files_only=True)
        styles = _styles(directory, denoiser)
    except Exception as error:
        raise ModelCorruptError(
            f"The image model in {directory} cannot be read ({type(error).__name__}). Install the product again, or "
            "export the model again."
        ) from error
    return EmbeddedFamily(
        name, autoencoder.eval().to(device), denoiser.eval().to(device), scheduler, styles, text_encoder()
    )


def _styles(directory: Path, denoiser: TokenDenoiser) -> tuple[str, ...]:
    """Words for styles; a model without them draws in any."""
    path = directory / "training.json"
    if not path.is_file():
        return ()
    styles = tuple(str(style) for style in json.loads(path.read_text(encoding="utf-8")).get("styles", ()))
    return styles if len(styles) == denoiser.any_style else ()
