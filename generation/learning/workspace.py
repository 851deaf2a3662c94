"""Where a recipe keeps its things on disk, and that only one process works at each of them."""

from __future__ import annotations

import fcntl
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import torch
from diffusers.models.modeling_utils import ModelMixin

from generation.data_dir import default_data_dir


def learning_dir() -> Path:
    """Where downloads, data sets and checkpoints live: ``learning`` in the data directory."""
    return Path(os.environ.get("PALAVER_DATA_DIR") or default_data_dir()) / "learning"


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the folder's lock and write its pid file, so that two trainings never share a checkpoint.

    Raises:
        click.ClickException: Another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "training.pid").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise click.ClickException(f"A training runs already in {folder}: see training.pid there.") from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def keep(model: ModelMixin, folder: Path, max_shard_size: str = "5GB") -> None:
    """Save a model in diffusers' layout, whole or not at all."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    model.save_pretrained(partial, max_shard_size=max_shard_size)
    for path in partial.iterdir():
        path.chmod(0o644)  # weights come out readable by their owner alone
    shutil.rmtree(folder, ignore_errors=True)
    partial.replace(folder)


def begin(threads: int | None) -> int:
    """Set a command's logging and its CPU threads.

    Args:
        threads: At most so many; None is all that this process may use.

    Returns:
        How many.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    cores = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    return cores


def parameter_count(model: torch.nn.Module) -> int:
    """How many numbers a model has learned."""
    return sum(parameter.numel() for parameter in model.parameters())
