"""Stable Diffusion's safety checker as an image classifier: a CLIP image encoder and its list of concepts.

Source: Rombach et al., and Rando et al., "Red-Teaming the Stable Diffusion Safety Filter", 2022; the arithmetic is that
of ``diffusers``' ``StableDiffusionSafetyChecker``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from generation.errors import ModelError
from generation.moderation.nsfw import opened
from generation.moderation.types import Category, Finding

Progress = Callable[[str, float | None], None]

#: CLIP's own mean and deviation of pixels.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_DEVIATION = (0.26862954, 0.26130258, 0.27577711)
#: Distance beyond a concept's own threshold, to a score: 0.5 at the threshold, 0.9 at 0.02 beyond it.
_SHARPNESS = 110.0


class SafetyChecker:
    """Scores pictures with the checker's concepts.

    Args:
        checker: ``StableDiffusionSafetyChecker``.
        version: For the record.
    """

    name = "model:stable-diffusion-safety-checker"

    def __init__(self, checker: Any, version: str) -> None:
        self._checker = checker
        self.version = version
        self._size_px = int(checker.config.vision_config.image_size)

    @torch.inference_mode()
    def findings(self, pictures: Sequence[bytes]) -> list[list[Finding]]:
        """What the checker sees in each encoded picture.

        Raises:
            OSError: One cannot be decoded.
        """
        if not pictures:
            return []
        pixels = torch.stack([self._pixels(picture) for picture in pictures])
        pooled = self._checker.vision_model(pixels)[1]
        embedded = functional.normalize(self._checker.visual_projection(pooled))
        found = self._beyond(embedded, self._checker.concept_embeds, self._checker.concept_embeds_weights)
        special = self._beyond(embedded, self._checker.special_care_embeds, self._checker.special_care_embeds_weights)
        # Near a special concept, such as a child, the checker lowers the bar for all others.
        found = found + torch.where(special > 0, 0.01, 0.0)
        scores = torch.sigmoid(found * _SHARPNESS).tolist()
        return [[Finding(Category.SEXUAL, score, self.name, self.version)] for score in scores]

    def _beyond(self, embedded: torch.Tensor, concepts: torch.Tensor, thresholds: torch.Tensor) -> torch.Tensor:
        """How far each picture is beyond the threshold of the concept it is closest to: ``(batch,) float32``."""
        similarity = embedded @ functional.normalize(concepts).T
        return (similarity - thresholds).amax(1)

    def _pixels(self, picture: bytes) -> torch.Tensor:
        from PIL import Image

        image = opened(picture)
        size = self._size_px
        short = size / min(image.size)
        resized = image.resize(
            (max(size, round(image.width * short)), max(size, round(image.height * short))), Image.Resampling.BICUBIC
        )
        left, top = (resized.width - size) // 2, (resized.height - size) // 2
        data = torch.frombuffer(
            bytearray(resized.crop((left, top, left + size, top + size)).tobytes()), dtype=torch.uint8
        )
        pixels = data.view(size, size, 3).permute(2, 0, 1).float() / 255
        mean, deviation = (torch.tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        return (pixels - mean) / deviation


def load_safety_checker(name: str, data_dir: Path, progress: Progress) -> SafetyChecker:
    """Load the checker, pulling it if need be.

    Args:
        name: Hub id, for example ``CompVis/stable-diffusion-safety-checker``, or directory.
        data_dir: Where models are kept.
        progress: Told what is being done.

    Raises:
        ModelError: It cannot be had or loaded.
    """
    from diffusers.pipelines.stable_diffusion.safety_checker import StableDiffusionSafetyChecker  # seconds to import

    from generation import catalog

    progress(f"loading the image safety checker {name}", None)
    location = catalog.pull(name, data_dir)
    try:
        checker: Any = StableDiffusionSafetyChecker.from_pretrained(location.directory, use_safetensors=True)
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(f"The image safety checker {name} cannot be loaded ({type(error).__name__}).") from error
    checker.eval()
    return SafetyChecker(checker, location.revision[:12] or Path(location.repo).name)
