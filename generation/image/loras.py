"""LoRA files: small changes to a model's weights, added once when it is loaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from generation.errors import ModelCorruptError, ModelError, ModelNotFoundError


def add_loras(name: str, pipe: Any, loras: Sequence[str]) -> None:
    """Add LoRA files to a pipeline's weights, for good.

    Args:
        name: What the model is called.
        pipe: A loaded pipeline.
        loras: Each ``path`` or ``path:scale``; a scale of 1 adds what was trained.

    Raises:
        ModelNotFoundError: There is no such file.
        ModelCorruptError: It is not a safetensors file.
        ModelError: It does not belong to this model.

    Source: Hu et al., "LoRA", 2021.
    """
    if not loras:
        return
    if not hasattr(pipe, "load_lora_weights"):
        raise ModelError(f"{name} takes no LoRA files: remove them from the settings.")
    for number, entry in enumerate(loras):
        path, scale = _parsed(entry)
        adapter = f"lora{number}"
        try:
            pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=adapter, local_files_only=True)
            known = {part for parts in pipe.get_list_adapters().values() for part in parts}
        except Exception as error:
            raise ModelError(f"The LoRA file {path} cannot be added to {name} ({type(error).__name__}).") from error
        if adapter not in known:
            raise ModelError(f"The LoRA file {path} holds nothing for {name}: it was made for another model.")
        pipe.fuse_lora(components=_with_adapter(pipe, adapter), lora_scale=scale, adapter_names=[adapter])
        pipe.unload_lora_weights()


def _with_adapter(pipe: Any, adapter: str) -> list[str]:
    return [part for part, adapters in pipe.get_list_adapters().items() if adapter in adapters]


def _parsed(entry: str) -> tuple[Path, float]:
    place, separator, scale = entry.rpartition(":")
    if not separator or not _is_number(scale):
        place, scale = entry, "1"
    path = Path(place).expanduser()
    if not path.is_file():
        raise ModelNotFoundError(f"There is no LoRA file {path}. Check the path in the settings.")
    try:
        with safe_open(path, framework="pt"):
            return path, float(scale)
    except (SafetensorError, OSError):
        raise ModelCorruptError(f"The LoRA file {path} is broken, or no safetensors file.") from None


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
