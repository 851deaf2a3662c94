"""The second stage for pictures: a classifier, asked about many at once."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Protocol

from generation.moderation.config import ModerationConfig
from generation.moderation.types import Finding

Progress = Callable[[str, float | None], None]

#: Of a blurred preview: what is left are its colours.
_BLUR_SHARE = 1 / 12


class ImageClassifier(Protocol):
    """What sees things in pictures."""

    def findings(self, pictures: Sequence[bytes]) -> list[list[Finding]]:
        """What is seen in each encoded picture."""
        ...


def load_image_classifier(config: ModerationConfig, progress: Progress) -> ImageClassifier | None:
    """Load the image model that is configured, None for none.

    Raises:
        GenerationError: It cannot be had or loaded.
    """
    if config.image_model == "none":
        return None
    from generation.moderation.weights import NSFWJS, installed

    if config.image_model == NSFWJS.name:
        from generation.moderation.nsfw import NsfwClassifier

        return NsfwClassifier(installed(NSFWJS, config.data_dir, progress))
    from generation.moderation.safety_checker import load_safety_checker

    return load_safety_checker(config.image_model, config.data_dir, progress)


def blurred(picture: bytes) -> bytes:
    """A picture of which nothing can be recognised, as PNG of the same size.

    Raises:
        OSError: It cannot be decoded.
    """
    from PIL import Image, ImageFilter  # heavy, and only where there is something to blur

    from generation.moderation.nsfw import opened

    image = opened(picture)
    hidden = image.filter(ImageFilter.GaussianBlur(max(image.size) * _BLUR_SHARE))
    out = io.BytesIO()
    hidden.resize(image.size, Image.Resampling.BILINEAR).save(out, "PNG")
    return out.getvalue()
