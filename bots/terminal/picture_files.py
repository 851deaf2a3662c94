"""Pictures as files: whole or not there, never over another picture."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from workers.errors import WorkersError

_SUFFIXES = {"image/png": ".png", "image/jpeg": ".jpg", "image/webp": ".webp"}
_LONGEST_NAME_CHARS = 40


class FileError(WorkersError):
    """A file cannot be read or written."""

    code = "file"
    exit_code = 74


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture to write.

    Attributes:
        name: Without its suffix.
        media_type: As in ``ArtifactRef``.
        data: Its bytes.
    """

    name: str
    media_type: str
    data: bytes


def name_of(prompt: str, seed: int) -> str:
    """A file's name from what it shows and its seed, in whatever script the prompt is written."""
    words = re.sub(r"[\W_]+", "-", prompt.lower()).strip("-")[:_LONGEST_NAME_CHARS].rstrip("-")
    return f"{words or 'picture'}-{seed}"


def prepare(directory: Path) -> None:
    """Make sure that pictures can be written, before anything is drawn.

    Raises:
        FileError: They cannot.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{directory} cannot be made: {error.strerror}. Name another one with --out.") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise FileError(f"{directory} cannot be written to. Name another one with --out.")


def read(file: Path, limit_bytes: int) -> bytes:
    """A picture to begin from.

    Raises:
        FileError: It cannot be read, or is too large.
    """
    try:
        if file.stat().st_size > limit_bytes:
            raise FileError(f"{file} has more than {limit_bytes // 2**20} MiB; send a smaller picture.")
        return file.read_bytes()
    except OSError as error:
        raise FileError(f"{file} cannot be read: {error.strerror}.") from None


def write(directory: Path, pictures: Sequence[PictureFile]) -> list[Path]:
    """Write all pictures, or none.

    Args:
        directory: Where; it exists.
        pictures: What. A name that another picture has gets a number; the very same picture is left as it is.

    Returns:
        Where each is.

    Raises:
        FileError: They could not be written; what was is removed again.
    """
    written: list[Path] = []
    places: list[Path] = []
    try:
        for picture in pictures:
            place, new = _write_one(directory, picture)
            places.append(place)
            written += [place] if new else []
    except OSError as error:
        for place in written:
            place.unlink(missing_ok=True)
        raise FileError(f"The pictures cannot be written to {directory}: {error.strerror}.") from None
    return places


def _write_one(directory: Path, picture: PictureFile) -> tuple[Path, bool]:
    """Where the picture is, and whether it is new there."""
    unfinished = directory / f".{uuid4().hex}"
    try:
        unfinished.write_bytes(picture.data)
        number = 1
        while True:
            place = directory / (picture.name + (f"-{number}" if number > 1 else "") + _SUFFIXES[picture.media_type])
            try:
                os.link(unfinished, place)  # unlike a rename, it never replaces what is there
            except FileExistsError:
                if place.is_file() and drawn(place.read_bytes()) == drawn(picture.data):
                    return place, False
                number += 1
            else:
                return place, True
    finally:
        unfinished.unlink(missing_ok=True)


_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_DRAWN = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT"})


def drawn(picture: bytes) -> bytes:
    """What is to be seen of a PNG, without what its file says beside it, such as the job; other formats are left whole.

    Source: Portable Network Graphics (PNG) Specification, third edition, section 5 (chunks).
    """
    if not picture.startswith(_PNG_SIGNATURE):
        return picture
    seen, position = [], len(_PNG_SIGNATURE)
    while position + 8 <= len(picture):
        end = position + 12 + int.from_bytes(picture[position : position + 4], "big")
        if picture[position + 4 : position + 8] in _DRAWN:
            seen.append(picture[position:end])
        position = end
    return b"".join(seen)
