"""A bilingual FAQ that nobody here wrote: Debian's ``debian-faq`` and ``debian-faq-zh-cn``, out of their packages."""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from generation.errors import ModelCorruptError
from generation.learning.packages import Package, fetch
from generation.retrieval.formats.html import parse_html

ENGLISH = Package(
    "debian", "debian-faq", "11.1", "427426e0cfa6888622fc1d72631071cb4b5a1f86ccde722e7820bcef284de5d0", "GPL-2.0+"
)
CHINESE = Package(
    "debian", "debian-faq-zh-cn", "11.1", "3545356b1aa04d87e91dd15e8406210cf5b4f476662e597897bcb42234591758", "GPL-2.0+"
)
_PAGES = {
    "en": re.compile(r"\./usr/share/doc/debian/FAQ/(?!index)[\w-]+\.en\.html"),
    "zh": re.compile(r"\./usr/share/doc/debian/FAQ/zh-cn/(?!index)[\w-]+\.zh-cn\.html"),
}
_NUMBERED = re.compile(r"(\d+(?:\.\d+)+)\.?\s*(.*)", re.DOTALL)
_AR_HEADER_BYTES = 60


@dataclass(frozen=True, slots=True)
class Entry:
    """One section.

    Args:
        number: The same in both languages.
        question: Its heading.
        text: What stands under it.
    """

    number: str
    question: str
    text: str


def pages(language: Literal["en", "zh"], downloads_dir: Path) -> dict[str, bytes]:
    """The FAQ's pages by name.

    Raises:
        ModelNotFoundError: The package cannot be fetched.
        ModelCorruptError: It is not the pinned one.
    """
    archive = fetch(ENGLISH if language == "en" else CHINESE, downloads_dir)
    found: dict[str, bytes] = {}
    for name, content in _members(archive.read_bytes()):
        if name.startswith("data.tar"):
            with tarfile.open(fileobj=io.BytesIO(content)) as data:
                for member in data:
                    file = data.extractfile(member) if _PAGES[language].fullmatch(member.name) else None
                    if file is not None:
                        found[Path(member.name).name] = file.read()
    return dict(sorted(found.items()))


def number_of(heading: str) -> str | None:
    """The number in front of a section's heading."""
    match = _NUMBERED.match(heading)
    return match.group(1) if match else None


def entries(found: dict[str, bytes]) -> list[Entry]:
    """The numbered sections of pages."""
    texts: dict[str, tuple[str, list[str]]] = {}
    for content in found.values():
        for section in parse_html(content.decode("utf-8")).sections:
            match = _NUMBERED.match(section.heading_path[-1]) if section.heading_path else None
            if match:
                texts.setdefault(match.group(1), (match.group(2).strip(), []))[1].extend(section.paragraphs)
    return [Entry(number, question, "\n\n".join(paragraphs)) for number, (question, paragraphs) in texts.items()]


def _members(archive: bytes) -> Iterator[tuple[str, bytes]]:
    """Members of an ``ar`` archive, which is what a ``.deb`` is."""
    if not archive.startswith(b"!<arch>\n"):
        raise ModelCorruptError("A Debian package does not begin as one.")
    place = 8
    while place + _AR_HEADER_BYTES <= len(archive):
        header = archive[place : place + _AR_HEADER_BYTES]
        name, size = header[:16].decode("ascii").strip().rstrip("/"), int(header[48:58])
        place += _AR_HEADER_BYTES
        yield name, archive[place : place + size]
        place += size + size % 2
