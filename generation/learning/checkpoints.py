"""Checkpoints that survive a kill at any moment: complete or not there."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from generation.errors import ModelCorruptError

NAME = "checkpoint.pt"
PREVIOUS = "checkpoint.previous.pt"


def save(folder: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint beside the last one, then take its place; the last one is kept as a second choice.

    Args:
        folder: Of one training; made if missing.
        state: Tensors, numbers, texts and containers of them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / (NAME + ".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if (folder / NAME).exists():
        (folder / NAME).replace(folder / PREVIOUS)
    partial.replace(folder / NAME)


def load(folder: Path) -> dict[str, Any] | None:
    """Read the newest checkpoint that can be read, or None where there is none.

    Raises:
        ModelCorruptError: There are checkpoints, but none can be read.
    """
    broken = None
    for name in (NAME, PREVIOUS):
        path = folder / name
        if path.exists():
            try:
                if not zipfile.is_zipfile(path):  # other bytes would be read as an old format, with any error there is
                    raise ValueError(f"{path} is not a whole checkpoint")  # noqa: TRY301 - one road for all that is broken
                return dict(torch.load(path, map_location="cpu", weights_only=True))
            except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
                broken = error
    if broken is not None:
        raise ModelCorruptError(
            f"The checkpoints in {folder} cannot be read: move them away to begin anew."
        ) from broken
    return None
