"""The one entry point of an engine process for chat: from options to an engine."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from generation.chat.config import ChatConfig
from generation.moderation.factory import moderated
from generation.tuning.place import store_url
from generation.types import ChatRequest, Engine

if TYPE_CHECKING:
    from generation.chat.adapter_shelf import AdapterSource
    from generation.chat.loading import LoadedModel


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[ChatRequest]:
    """Start the engine that the options ask for, with moderation around it if they have some.

    Args:
        options: Fields of ``ChatConfig``, as plain JSON, and under ``moderation`` those of ``ModerationConfig``.
        progress: Told what is being done, and which share of it is done (0 to 1) where that is known.

    Raises:
        GenerationError: An option is wrong, or the model cannot be had, loaded or reached.
    """
    return moderated(_build, options, progress)


def _build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[ChatRequest]:
    config = ChatConfig.from_options(options)
    if config.backend == "openai":
        from generation.chat.openai_backend import OpenAIBackend  # needs no torch

        return OpenAIBackend(config)
    from generation.chat.engine import ChatEngine  # seconds to import, only for this backend
    from generation.chat.loading import load  # likewise

    loaded = load(config, progress)
    return ChatEngine(loaded, config, _adapters(loaded, config))


def _adapters(loaded: LoadedModel, config: ChatConfig) -> AdapterSource | None:
    """Where tenants' adapters come from, unless they are switched off."""
    if not config.adapter_memory_bytes:
        return None
    from generation.tuning.serving import PromotedAdapters

    url = store_url(config.adapters_url, config.data_dir)
    return PromotedAdapters(url, loaded.identity, loaded.device, loaded.dtype)
