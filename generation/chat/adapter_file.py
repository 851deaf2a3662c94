"""Adapters as peft writes them: ``adapter_config.json`` and a safetensors file, read without running anything."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from generation.chat.adapters import LowRank, dtype_of
from generation.errors import AdapterError

_KEY = re.compile(r"base_model\.model\.(?P<path>.+)\.lora_(?P<half>[AB])\.weight")
#: What a configuration may say that means more than two matrices and a scale; anything else than this is refused.
_PLAIN: Mapping[str, tuple[object, ...]] = {
    "peft_type": ("LORA",),
    "bias": ("none", None),
    "use_dora": (False, None),
    "use_qalora": (False, None),
    "lora_bias": (False, None),
    "modules_to_save": (None, []),
    "rank_pattern": (None, {}),
    "alpha_pattern": (None, {}),
    "layer_replication": (None, []),
    "trainable_token_indices": (None, []),
    "target_parameters": (None, []),
    "alora_invocation_tokens": (None, []),
}


def read(config: Mapping[str, Any], data: bytes, device: torch.device, dtype: torch.dtype) -> dict[str, LowRank]:
    """An adapter's additions.

    Args:
        config: Its ``adapter_config.json``.
        data: Its safetensors file.
        device: Where the model computes.
        dtype: In which numbers the model does.

    Returns:
        By the dotted name of each projection, the scale worked into ``up``.

    Raises:
        AdapterError: It is broken, or more than low-rank additions.
    """
    for name, plain in _PLAIN.items():
        if name in config and config[name] not in plain:
            raise AdapterError(f"The adapter cannot be used: its {name} is not {plain[0]}.")
    scale = _scale(config)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, OverflowError):
        raise AdapterError("The adapter's file is broken or cut short.") from None
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        found = _KEY.fullmatch(key)
        if found is None or tensor.ndim != 2 or not tensor.is_floating_point():
            raise AdapterError(f"The adapter cannot be used: {key[:120]} is no low-rank addition.")
        halves.setdefault(found["path"], {})[found["half"]] = tensor
    if not halves or any(len(pair) != 2 for pair in halves.values()):
        raise AdapterError("The adapter's file holds no whole additions.")
    numbers = dtype_of(device, dtype)
    return {
        path: LowRank(
            pair["A"].to(device, numbers).contiguous(), (pair["B"].float() * scale).to(device, numbers).contiguous()
        )
        for path, pair in halves.items()
    }


def _scale(config: Mapping[str, Any]) -> float:
    """Source: Kalajdzievski, "A Rank Stabilization Scaling Factor for Fine-Tuning with LoRA", 2023, for the root."""
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not isinstance(rank, int) or rank < 1 or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise AdapterError("The adapter's configuration names no rank and scale.")
    return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)
