"""From a configured name to a model that draws: find it, pull it if need be, load it, say clearly why not."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from generation import catalog, torch_devices
from generation.catalog import PullProgress
from generation.errors import ModelError
from generation.image.conditioning import TextConditioner
from generation.image.config import EMBEDDED_DIR, EMBEDDED_MODEL, ImageConfig
from generation.image.families.embedded import PIPELINE, EmbeddedFamily, TextEncoder, load_embedded
from generation.image.family import Family
from generation.image.loras import add_loras
from generation.image.pipelines import adapted, load_pipeline, read_index

_LOG = logging.getLogger("palaver.image.loading")

#: Told what is being done, and which share of it is done (0 to 1) where that is known.
Progress = Callable[[str, float | None], None]


def load(config: ImageConfig, progress: Progress) -> Family | Any:
    """Load the configured model, pulling it first if it is not here.

    Args:
        config: Which model, where, in which numbers.
        progress: Told what is being done.

    Returns:
        A family that step-level batching serves, or a diffusers pipeline that has to run through its own loop.

    Raises:
        ModelNotFoundError: No such model.
        ModelCorruptError: A file of it is broken.
        ModelError: It cannot be had or used; the message says why and what to do.
        OutOfMemoryError: The weights alone do not fit on the device.
    """
    disable_progress_bar()  # type: ignore[no-untyped-call]  # the library's own; ours goes where the caller wants it
    torch_devices.set_threads(config.threads)
    device = torch_devices.choose_device(config.device)
    if config.model.lower() == EMBEDDED_MODEL:
        return _embedded(config, EMBEDDED_DIR, device, progress)
    directory = _located(config, progress)
    if read_index(directory).get("_class_name") == PIPELINE:
        return _embedded(config, directory, device, progress)
    progress("loading the image model", None)
    dtype = torch_devices.choose_dtype(config.dtype, device)
    pipe = load_pipeline(config.model, directory, device, dtype, allow_pickle=config.allow_pickle)
    add_loras(config.model, pipe, config.loras)
    family = adapted(config.model, pipe)
    if family is None:
        _LOG.warning("%s is drawn one picture at a time: its pipeline is of no known family", config.model)
        return pipe
    return family


def _located(config: ImageConfig, progress: Progress) -> Path:
    def tell(moment: PullProgress) -> None:
        progress(moment.stage, moment.done_bytes / moment.total_bytes if moment.total_bytes else None)

    location = catalog.resolve(config.model, config.data_dir)
    if location.directory is None:
        location = catalog.pull(config.model, config.data_dir, tell, allow_pickle=config.allow_pickle)
    if location.directory is None:
        raise ModelError(f"{config.model} was pulled and is not there. Run: palaver models pull {config.model}")
    if location.source != "directory":
        progress("checking the files", None)
        catalog.check_files(location)
    return location.directory


def _embedded(config: ImageConfig, directory: Path, device: torch.device, progress: Progress) -> EmbeddedFamily:
    if config.loras:
        raise ModelError("The embedded image model takes no LoRA files: remove them from the settings.")
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
