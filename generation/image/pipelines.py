"""Diffusers pipelines from directories: what is in them is checked before anything is loaded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from generation import torch_devices
from generation.errors import ModelCorruptError, ModelError, ModelNotFoundError, OutOfMemoryError
from generation.image.family import Family

_LIBRARIES = {"diffusers", "transformers"}
#: Components that judge pictures; the product judges them itself, for every model alike.
_LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")
_DENOISERS = ("unet", "transformer")


def read_index(directory: Path) -> dict[str, Any]:
    """What ``model_index.json`` says; empty where there is none.

    Raises:
        ModelCorruptError: It cannot be read.
    """
    path = directory / "model_index.json"
    if not path.is_file():
        return {}
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        _ = index["_class_name"]
    except (ValueError, KeyError, TypeError):
        raise ModelCorruptError(f"{path} is broken. Copy or pull the model again.") from None
    return index


def load_pipeline(
    name: str, directory: Path, device: torch.device, dtype: torch.dtype, *, allow_pickle: bool = False
) -> Any:
    """Load a pipeline of diffusers on its device, in evaluation mode.

    Args:
        name: What the model is called.
        directory: In diffusers' layout.
        device: Where it is to compute.
        dtype: In which numbers.
        allow_pickle: Whether weights other than safetensors may be loaded.

    Raises:
        ModelNotFoundError: There is no model.
        ModelCorruptError: A file of it is broken.
        ModelError: It needs code of its own, has only pickled weights, or diffusers cannot load it.
        OutOfMemoryError: Its weights do not fit.
    """
    index = read_index(directory)
    if not index:
        raise ModelNotFoundError(f"{directory} holds no image model: it has no model_index.json.")
    components = _components(name, index)
    variant = _variant(directory)
    parameters = _count_parameters(directory, components, allow_pickle=allow_pickle)
    needed, free = parameters * dtype.itemsize, torch_devices.free_memory_bytes(device)
    if needed > free:
        raise OutOfMemoryError(
            f"The weights of {name} take {needed / 1e9:.1f} GB and {free / 1e9:.1f} GB are free on {device}. "
            "Choose a smaller model."
        )
    import diffusers  # seconds, only where it is needed

    diffusers.utils.logging.set_verbosity_error()  # its warnings quote prompts
    diffusers.utils.logging.disable_progress_bar()
    options: dict[str, Any] = {"dtype": dtype, "local_files_only": True, "trust_remote_code": False}
    options |= {"variant": variant, "use_safetensors": None if allow_pickle else True}
    options |= {part: None for part in _LEFT_OUT if part in components}
    if "safety_checker" in components:
        options["requires_safety_checker"] = False
    try:
        loader: Any = diffusers.DiffusionPipeline
        pipe = loader.from_pretrained(directory, **options)
        pipe.to(device)
    except torch.OutOfMemoryError:
        raise OutOfMemoryError(f"The weights of {name} do not fit on {device}. Choose a smaller model.") from None
    except Exception as error:  # noqa: BLE001 - the library raises whatever its parsers raise
        told = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {told[0][:200]}" if told else type(error).__name__
        raise ModelError(f"The image model {name} cannot be loaded ({reason}).") from None
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _components(name: str, index: Mapping[str, Any]) -> set[str]:
    """Names of the components, all of which come from known libraries.

    Raises:
        ModelError: One of them is code that comes with the model.
    """
    components = {part: origin for part, origin in index.items() if isinstance(origin, list) and len(origin) == 2}
    for part, (library, _) in components.items():
        if library is not None and library not in _LIBRARIES and part not in _LEFT_OUT:
            raise ModelError(f"{name} brings code of its own ({part}), which is not run. Choose another image model.")
    return {part for part, (library, _) in components.items() if library is not None}


def _variant(directory: Path) -> str | None:
    """``fp16`` where the denoiser's weights are there in that variant only."""
    for part in _DENOISERS:
        files = [path.name for path in (directory / part).glob("*.safetensors")]
        if files:
            return "fp16" if all(".fp16" in file for file in files) else None
    return None


def _count_parameters(directory: Path, components: set[str], *, allow_pickle: bool) -> int:
    """See that the weights are whole; their number."""
    parameters = 0
    for part in sorted(components - set(_LEFT_OUT)):
        folder = directory / part
        files = sorted(folder.glob("*.safetensors"))
        pickled = [path for suffix in ("bin", "pt", "pth", "ckpt") for path in folder.glob(f"*.{suffix}")]
        if pickled and not files and not allow_pickle:
            raise ModelError(
                f"{folder} has no safetensors weights. Others can run code when they are loaded: convert them, or set "
                "allow_pickle if you trust their author."
            )
        plain = [path for path in files if ".fp16" not in path.name]
        parameters += sum(_size_of(path) for path in plain or files)
    return parameters


def _size_of(path: Path) -> int:
    try:
        with safe_open(path, framework="pt") as file:
            return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    except (SafetensorError, OSError):
        raise ModelCorruptError(f"{path} is broken or cut short. Copy or pull the model again.") from None


def adapted(name: str, pipe: Any) -> Family | None:
    """A pipeline as a family that step-level batching serves; None where its class is of none of these."""
    from generation.image.families import dit, flux, pixart, sd3, stable_diffusion  # seconds, once the model is there

    families: dict[str, Callable[[str, Any], Family]] = {
        "StableDiffusionPipeline": stable_diffusion.StableDiffusionFamily,
        "LatentConsistencyModelPipeline": stable_diffusion.StableDiffusionFamily,
        "StableDiffusionXLPipeline": stable_diffusion.StableDiffusionXLFamily,
        "PixArtAlphaPipeline": pixart.PixArtFamily,
        "PixArtSigmaPipeline": pixart.PixArtFamily,
        "StableDiffusion3Pipeline": sd3.StableDiffusion3Family,
        "FluxPipeline": flux.FluxFamily,
        "DiTPipeline": dit.DiTFamily,
    }
    adapter = families.get(type(pipe).__name__)
    return None if adapter is None else adapter(name, pipe)
