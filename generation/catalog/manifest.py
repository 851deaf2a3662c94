"""The record beside an installed model: where it came from and what each of its files must be."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from generation.errors import ModelCorruptError

MANIFEST = "palaver-model.json"
_CHUNK_BYTES = 4 * 2**20


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What one file must be."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What was installed.

    Args:
        name: Catalogue name, or ``org/name`` or ``org/name@revision`` as it was asked for.
        source: ``package`` or ``hub``.
        repo: Requirement of the package, or hub id.
        revision: SHA-256 of the package's model file, or the commit that the asked revision meant when it was pulled.
        directory: Where the files are; in the record itself it may be relative to that, so that folders can be moved.
        files: All of them.
    """

    name: str
    source: str
    repo: str
    revision: str
    directory: str
    files: tuple[FileRecord, ...]

    @property
    def size_bytes(self) -> int:
        """Room that the files take."""
        return sum(file.size_bytes for file in self.files)


def write(folder: Path, manifest: Manifest) -> None:
    """Leave the record in a folder, whole or not at all."""
    draft = folder / f".{MANIFEST}.new"
    draft.write_text(json.dumps(asdict(manifest), indent=1), encoding="utf-8")
    draft.replace(folder / MANIFEST)


def read(folder: Path) -> Manifest | None:
    """The record in a folder, None if nothing was installed there.

    Raises:
        ModelCorruptError: There is one, and it cannot be understood.
    """
    try:
        data = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = tuple(FileRecord(**file) for file in data.pop("files"))
        directory = str(folder / data.pop("directory"))
        return Manifest(**data, directory=directory, files=files)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        raise ModelCorruptError(f"{folder / MANIFEST} is broken. Delete the folder and pull the model again.") from None


def records(directory: Path, on_bytes: Callable[[int], None] = lambda _: None) -> tuple[FileRecord, ...]:
    """Read every file of a directory.

    Args:
        directory: A model's files; links are followed.
        on_bytes: Called with the number of bytes read since the last call.
    """
    paths = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST)
    return tuple(
        FileRecord(path.relative_to(directory).as_posix(), path.stat().st_size, sha256_of(path, on_bytes))
        for path in paths
    )


def sha256_of(path: Path, on_bytes: Callable[[int], None] = lambda _: None) -> str:
    """Hash of a file, in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            on_bytes(len(chunk))
    return digest.hexdigest()


def check_sizes(manifest: Manifest) -> None:
    """See that every file is there in its right size: what can be checked at each start.

    Raises:
        ModelCorruptError: Which file is not, and what to run.
    """
    for file in manifest.files:
        path = Path(manifest.directory) / file.path
        if not path.is_file():
            raise ModelCorruptError(f"{path} is missing. Run: palaver models pull {manifest.name}")
        if path.stat().st_size != file.size_bytes:
            raise ModelCorruptError(
                f"{path} has {path.stat().st_size} bytes instead of {file.size_bytes}. "
                f"Run: palaver models pull {manifest.name}"
            )


def check_hashes(manifest: Manifest, on_bytes: Callable[[int], None] = lambda _: None) -> None:
    """Read every file again and compare its hash.

    Raises:
        ModelCorruptError: Which file is wrong, and what to run.
    """
    check_sizes(manifest)
    for file in manifest.files:
        path = Path(manifest.directory) / file.path
        if sha256_of(path, on_bytes) != file.sha256:
            raise ModelCorruptError(f"{path} has the wrong SHA-256. Run: palaver models pull {manifest.name}")
