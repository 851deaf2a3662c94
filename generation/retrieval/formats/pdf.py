"""PDF to sections: one a page, under the headings of the document's outline."""

from __future__ import annotations

import io
import logging
import re
from typing import Any

from generation.errors import UnreadableDocumentError
from generation.retrieval.chunking import ParsedDocument, Section
from generation.retrieval.formats.text import joined_lines

MAX_PAGES = 5000
_BLANK = re.compile(r"\n[ \t]*\n")


def parse_pdf(content: bytes) -> ParsedDocument:
    """Read a PDF that has text; one of scanned pictures has none.

    Raises:
        UnreadableDocumentError: It is encrypted, broken or has too many pages.
    """
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # what it finds odd in a file concerns nobody
    try:
        reader = PdfReader(io.BytesIO(content))
        if reader.is_encrypted and not reader.decrypt(""):
            raise UnreadableDocumentError("it is encrypted; remove its password first")
        if len(reader.pages) > MAX_PAGES:
            raise UnreadableDocumentError(f"it has {len(reader.pages):,} pages; the most is {MAX_PAGES:,}")
        headings = _headings(reader)
        sections = []
        path: tuple[str, ...] = ()
        for number, page in enumerate(reader.pages, 1):
            path = headings.get(number - 1, path)
            parts = (joined_lines(part) for part in _BLANK.split(page.extract_text() or ""))
            paragraphs = tuple(part for part in parts if part)
            if paragraphs:
                sections.append(Section(path, paragraphs, f"page={number}", number))
        title = (reader.metadata.title or "") if reader.metadata else ""
    except (PyPdfError, ValueError, KeyError, IndexError, TypeError, AttributeError, NotImplementedError) as error:
        # pypdf meets what it does not expect in a broken file with any of these.
        raise UnreadableDocumentError("it is a broken PDF") from error
    return ParsedDocument(str(title).strip(), tuple(sections))


def _headings(reader: Any) -> dict[int, tuple[str, ...]]:
    """Index of a page -> headings in force there, from the outline."""
    found: dict[int, tuple[str, ...]] = {}

    def walk(entries: list[Any], above: tuple[str, ...], depth: int) -> None:
        last = above
        for entry in entries:
            if isinstance(entry, list):
                if depth < 6:
                    walk(entry, last, depth + 1)
                continue
            page = reader.get_destination_page_number(entry)
            last = (*above, str(entry.title).strip())
            if page is not None and page >= 0:
                found.setdefault(page, last)

    walk(reader.outline, (), 0)
    return found
