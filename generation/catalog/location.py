"""From what a user calls a model to where it is."""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from generation.catalog import manifest
from generation.catalog.entry import ModelEntry, entries, find
from generation.errors import ModelCorruptError, ModelNotFoundError

# The hub's own rule for names, and a branch, tag or commit.
_HUB_NAME = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class ModelLocation:
    """Where a model is, or would be after a pull.

    Args:
        name: What it was asked for as.
        source: ``package``, ``hub`` or ``directory``.
        repo: Requirement of the package, hub id, or the directory's path.
        revision: Hash of the package's model file, or branch, tag or commit of the hub repository.
        folder: Where its record is kept; for a directory itself.
        directory: Its files; None while it is not installed.
        entry: Its place in the catalogue, if it has one.
    """

    name: str
    source: Literal["package", "hub", "directory"]
    repo: str
    revision: str
    folder: Path
    directory: Path | None
    entry: ModelEntry | None = None


def models_folder(data_dir: Path) -> Path:
    """Where models are kept in a data directory."""
    return data_dir / "models"


def resolve(name: str, data_dir: Path) -> ModelLocation:
    """Find a model by what a user calls it, and its files if it is installed.

    Args:
        name: Catalogue name, hub id (``org/name`` or ``org/name@revision``) or directory.
        data_dir: Where models are kept, under ``models/``.

    Raises:
        ModelNotFoundError: It is none of these; the message offers the closest names.
        ModelCorruptError: It is installed, and its record is broken or not of the pinned revision.
    """
    location = locate(name, data_dir)
    if location.source == "directory":
        return location
    return replace(location, directory=_installed(location.folder, location.revision))


def locate(name: str, data_dir: Path) -> ModelLocation:
    """Where a model belongs, without a look at what is there.

    Raises:
        ModelNotFoundError: No such model; the message offers the closest names.
    """
    entry = find(name)
    if entry is not None:
        folder = models_folder(data_dir) / entry.name
        return ModelLocation(entry.name, entry.source, entry.repo, entry.revision, folder, None, entry)
    directory = Path(name).expanduser()
    if directory.is_dir():
        directory = directory.resolve()
        return ModelLocation(name, "directory", str(directory), "", directory, directory)
    hub = _HUB_NAME.fullmatch(name)
    if hub is None or name.startswith((".", "~", os.sep)):
        raise ModelNotFoundError(_not_found(name))
    folder = models_folder(data_dir) / name.replace("/", "--")
    return ModelLocation(name, "hub", hub["repo"], hub["revision"] or "main", folder, None)


def _installed(folder: Path, revision: str) -> Path | None:
    """The files that a folder's record speaks of, if they are of the revision that is wanted."""
    found = manifest.read(folder)
    if found is None or not Path(found.directory).is_dir():
        return None
    # A branch or tag was resolved when it was pulled, and that commit is kept; a commit must be the very one.
    pinned = len(revision) == 64 or _COMMIT.fullmatch(revision)
    if pinned and found.revision != revision:
        raise ModelCorruptError(
            f"Model {found.name} is installed at revision {found.revision[:12]} but {revision[:12]} is wanted. "
            f"Run: palaver models pull {found.name}"
        )
    return Path(found.directory)


def _not_found(name: str) -> str:
    names = [entry.name for entry in entries()]
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.6)
    hint = f"Did you mean {' or '.join(close)}? " if close else f"The catalogue has {', '.join(names)}. "
    return f"There is no model {name!r}. {hint}Any hub model works as org/name, any directory by its path."
