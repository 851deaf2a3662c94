"""From a configured name to a model that draws: find it, pull it if need be, load it, say clearly why not."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import torch
from transformers.utils.logging import disable_progress_bar

from generation import torch_devices
from generation.errors import ModelCorruptError, ModelNotFoundError
from generation.image.conditioning import TextConditioner
from generation.image.config import EMBEDDED_MODEL, ImageConfig
from generation.image.families.embedded import EMBEDDED_DIR, PIPELINE, EmbeddedFamily, TextEncoder, load_embedded
from generation.image.family import Family

_LOG = logging.getLogger("palaver.image.loading")

#: Told what is being done, and which share of it is done (0 to 1) where that is known.
Progress = Callable[[str, float | None], None]


def load(config: ImageConfig, progress: Progress) -> Family:
    """Load the configured model, pulling it first if it is not here.

    Args:
        config: Which model, where, in which numbers.
        progress: Told what is being done.

    Raises:
        ModelNotFoundError: No such model.
        ModelCorruptError: A file of it is broken.
        ModelError: It cannot be had or used; the message says why and what to do.
        OutOfMemoryError: The weights alone do not fit on the device.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the library's own; ours goes where the caller wants it
    torch_devices.set_threads(config.threads)
    device = torch_devices.choose_device(config.device)
    directory = _located(config, progress)
    if _pipeline(directory) in {PIPELINE, ""}:
        return _embedded(config, directory, device, progress)
    raise ModelNotFoundError("Not yet.")


def _located(config: ImageConfig, progress: Progress) -> Path:
    if config.model.lower() == EMBEDDED_MODEL:
        return EMBEDDED_DIR
    return Path(config.model).expanduser()


def _pipeline(directory: Path) -> str:
    """The class of pipeline that a directory is made for; empty where it holds no model."""
    index = directory / "model_index.json"
    if not index.is_file():
        return ""
    try:
        return str(json.loads(index.read_text(encoding="utf-8"))["_class_name"])
    except (ValueError, KeyError, TypeError):
        raise ModelCorruptError(f"{index} is broken. Copy or pull the model again.") from None


def _embedded(config: ImageConfig, directory: Path, device: torch.device, progress: Progress) -> EmbeddedFamily:
    # It is small: exact numbers cost little and make the same picture on every worker.
    dtype = torch.float32 if config.dtype == "auto" else torch_devices.choose_dtype(config.dtype, device)

    def text_encoder() -> TextEncoder:
        from generation.learning.sources import minilm_dir  # what training and drawing share

        progress("loading the text encoders", None)
        conditioner = TextConditioner(minilm_dir(config.data_dir / "learning" / "downloads"))
        conditioner.encode(["a first word", "第一个词"])  # its tables are unpacked now and not at the first request
        return conditioner.encode

    progress("loading the image model", None)
    return load_embedded(config.model, directory, device, dtype, text_encoder)
