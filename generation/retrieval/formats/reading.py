"""A document's bytes to sections: which parser, and within which limits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import PurePosixPath

from generation.errors import UnreadableDocumentError
from generation.retrieval.chunking import ParsedDocument
from generation.retrieval.formats.docx import parse_docx
from generation.retrieval.formats.html import parse_html
from generation.retrieval.formats.markdown import parse_markdown
from generation.retrieval.formats.pairs import parse_pairs
from generation.retrieval.formats.pdf import parse_pdf
from generation.retrieval.formats.text import decoded, parse_text

MAX_DOCUMENT_BYTES = 50 * 2**20
#: Of the text that a document holds: a novel has about a million.
MAX_TEXT_CHARS = 5_000_000

_PARSERS: dict[str, Callable[[bytes], ParsedDocument]] = {
    ".md": lambda content: parse_markdown(decoded(content)),
    ".markdown": lambda content: parse_markdown(decoded(content)),
    ".html": lambda content: parse_html(decoded(content)),
    ".htm": lambda content: parse_html(decoded(content)),
    ".xhtml": lambda content: parse_html(decoded(content)),
    ".txt": lambda content: parse_text(decoded(content)),
    ".text": lambda content: parse_text(decoded(content)),
    ".rst": lambda content: parse_text(decoded(content)),
    ".pdf": parse_pdf,
    ".docx": parse_docx,
    ".csv": lambda content: parse_pairs(decoded(content)),
    ".tsv": lambda content: parse_pairs(decoded(content)),
}
ENDINGS = frozenset(_PARSERS)


def parse(name: str, content: bytes) -> ParsedDocument:
    """Read a document.

    Args:
        name: File name; its ending tells the format.
        content: The bytes.

    Raises:
        UnreadableDocumentError: It is broken, too large, empty or of no known format; the message says which.
    """
    ending = PurePosixPath(name).suffix.lower()
    if ending not in _PARSERS:
        raise UnreadableDocumentError(
            f"{ending or 'a file without an ending'} is not a format that can be read; "
            f"known are {', '.join(sorted(ENDINGS))}"
        )
    require_size(len(content))
    parsed = _PARSERS[ending](content)
    chars = sum(len(paragraph) for section in parsed.sections for paragraph in section.paragraphs)
    if not chars:
        raise UnreadableDocumentError("there is no text in it")
    if chars > MAX_TEXT_CHARS:
        raise UnreadableDocumentError(f"it holds {chars:,} characters of text; the most is {MAX_TEXT_CHARS:,}")
    return parsed


def require_size(size_bytes: int) -> None:
    """Refuse what is too large to be a document.

    Raises:
        UnreadableDocumentError: It is.
    """
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise UnreadableDocumentError(
            f"it has {size_bytes / 2**20:,.0f} MiB; the most is {MAX_DOCUMENT_BYTES // 2**20} MiB"
        )
