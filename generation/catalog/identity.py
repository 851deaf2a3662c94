"""Which weights a model is, in one line: what was made for one model is not used with another of the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from generation.catalog import manifest
from generation.catalog.location import ModelLocation

_SAMPLE_BYTES = 64 * 1024


def identity(location: ModelLocation) -> str:
    """The pinned revision of what was pulled; of a directory a hash of its configuration and of samples of its weights.

    Args:
        location: An installed model. Reading all of a large one's bytes at each start would take minutes.
    """
    if location.source != "directory":
        record = manifest.read(location.folder)
        return f"{location.repo}@{record.revision if record else location.revision}"
    digest = hashlib.sha256()
    directory = Path(location.repo)
    files = [directory / "config.json", *sorted(directory.glob("*.safetensors")), *sorted(directory.glob("*.bin"))]
    for path in files:
        if path.is_file():
            digest.update(f"{path.name} {path.stat().st_size} ".encode())
            digest.update(_sample(path))
    return f"sha256:{digest.hexdigest()}"


def _sample(path: Path) -> bytes:
    """The beginning, where safetensors lists all tensors, a part of the middle, and the end."""
    size = path.stat().st_size
    with path.open("rb") as file:
        parts = []
        for place in (0, size // 2, max(0, size - _SAMPLE_BYTES)):
            file.seek(place)
            parts.append(file.read(_SAMPLE_BYTES))
    return b"".join(parts)
