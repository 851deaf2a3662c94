"""The one entry point of an engine process for images: from options to an engine."""

from __future__ import annotations

from collections.abc import Callable

from generation.image.config import ImageConfig
from generation.moderation.factory import moderated
from generation.provenance.engine import marked
from generation.types import Engine, ImageRequest


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[ImageRequest]:
    """Start the engine that the options ask for, with moderation and marking around it if they have some.

    Args:
        options: Fields of ``ImageConfig``, as plain JSON, and under ``moderation`` those of ``ModerationConfig``,
            under ``provenance`` those of ``generation.provenance.engine.marked``.
        progress: Told what is being done, and which share of it is done (0 to 1) where that is known.

    Raises:
        GenerationError: An option is wrong, or the model cannot be had or loaded.
    """
    return marked(_moderated, options, progress)


def _moderated(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[ImageRequest]:
    return moderated(_build, options, progress, images=True)


def _build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[ImageRequest]:
    config = ImageConfig.from_options(options)
    from diffusers import DiffusionPipeline  # seconds to import, only once the options are right

    from generation.image.engine import ImageEngine  # likewise
    from generation.image.loading import load  # likewise
    from generation.image.memory import rows_for  # likewise
    from generation.image.sequential import SequentialEngine  # likewise
    from generation.image.upscaler import load_upscaler  # likewise

    model = load(config, progress)
    upscaler = load_upscaler(config.data_dir, model.device, progress)
    if isinstance(model, DiffusionPipeline):
        return SequentialEngine(config.model, model, upscaler)
    return ImageEngine(model, upscaler, rows_for(model, config), config.preview_px)
