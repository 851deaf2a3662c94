"""What is installed in a data directory: list it, check it, remove it, and keep two processes from doing so at once."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from generation.catalog import manifest
from generation.catalog.location import ModelLocation, locate, models_folder
from generation.catalog.manifest import Manifest
from generation.errors import DiskFullError, ModelCorruptError, ModelError, ModelNotFoundError

_POLL_S = 0.2


def installed(data_dir: Path) -> list[Manifest]:
    """Models that were pulled into this data directory, by name; broken records are left out."""
    found = []
    for folder in sorted(models_folder(data_dir).glob("*/")):
        with contextlib.suppress(ModelCorruptError):
            record = manifest.read(folder)
            if record is not None and Path(record.directory).is_dir():
                found.append(record)
    return found


def check_files(location: ModelLocation) -> None:
    """See that every file of an installed model is there in its right size: what can be afforded at each start.

    Raises:
        ModelNotFoundError: It is not installed.
        ModelCorruptError: Which file is wrong, and what to run.
    """
    manifest.check_sizes(_record(location))


def verify(name: str, data_dir: Path, on_bytes: Callable[[int], None] = lambda _: None) -> Manifest:
    """Read every byte of an installed model and compare it with what was pulled.

    Args:
        name: Catalogue name or hub id.
        data_dir: Where models are kept.
        on_bytes: Called with the number of bytes read since the last call.

    Raises:
        ModelNotFoundError: It is unknown or not installed.
        ModelCorruptError: Which file is wrong, and what to run.
    """
    location = locate(name, data_dir)
    record = _record(location)
    if location.entry is not None and record.revision != location.revision:
        raise ModelCorruptError(
            f"Model {record.name} is not of the catalogue's revision. Run: palaver models pull {record.name}"
        )
    manifest.check_hashes(record, on_bytes)
    return record


def remove(name: str, data_dir: Path) -> int:
    """Delete an installed model.

    A hub model's files are taken out of the Hugging Face cache, where they were put.

    Returns:
        Bytes that were freed.

    Raises:
        ModelNotFoundError: It is unknown or not installed.
        ModelError: It is a directory of somebody's own, or a file cannot be deleted.
    """
    location = locate(name, data_dir)
    record = _record(location)
    with locked(location):
        try:
            if location.source == "hub":
                _forget_hub_files(record)
            shutil.rmtree(location.folder)
        except OSError as error:
            raise ModelError(f"{location.folder} cannot be deleted: {error.strerror}.") from None
    return record.size_bytes


@contextlib.contextmanager
def locked(location: ModelLocation, on_wait: Callable[[], None] = lambda: None) -> Iterator[int]:
    """Hold a model's folder against other processes; the kernel lets go when this one dies.

    Args:
        location: Which model.
        on_wait: Called about five times a second while another process holds it.

    Yields:
        Descriptor of the lock: a child process that inherits it keeps holding it if this process is killed.

    Raises:
        ModelError: The models' folder cannot be written.
    """
    path = location.folder.with_name(f".{location.folder.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.open("a")
    except OSError as error:
        raise ModelError(f"Models cannot be kept in {path.parent}: {error.strerror}. Set another data_dir.") from None
    with lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                on_wait()
                time.sleep(_POLL_S)
        yield lock.fileno()


def require_room(folder: Path, needed_bytes: int) -> None:
    """See that a disk has room before anything is written to it.

    Raises:
        DiskFullError: It has not; the message has both numbers.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if free < needed_bytes:
        raise DiskFullError(
            f"{needed_bytes / 1e6:,.0f} MB are needed in {folder} and {free / 1e6:,.0f} MB are free. "
            "Make room, or set another data_dir."
        )


def _record(location: ModelLocation) -> Manifest:
    if location.source == "directory":
        raise ModelError(f"{location.repo} is a directory of your own: only pulled models can be verified or removed.")
    record = manifest.read(location.folder)
    if record is None:
        raise ModelNotFoundError(f"Model {location.name} is not installed. Run: palaver models pull {location.name}")
    return record


def _forget_hub_files(record: Manifest) -> None:
    from huggingface_hub import scan_cache_dir  # half a second that only hub models cost

    snapshot = Path(record.directory)
    if snapshot.is_dir():
        scan_cache_dir(snapshot.parents[2]).delete_revisions(record.revision).execute()
