"""Plain text to paragraphs; bytes to text."""

from __future__ import annotations

import codecs
import re

from generation.errors import UnreadableDocumentError
from generation.retrieval.chunking import ParsedDocument, Section

_BLANK = re.compile(r"\n\s*\n")
#: Between these characters a line break is no space.
_HAN = r"\u3000-\u303f\u3040-\u30ff\u3400-\u9fff\uff00-\uffef"
_CHARSET = re.compile(rb"""<meta[^>]+charset=["']?([\w-]+)""", re.IGNORECASE)


def parse_text(text: str) -> ParsedDocument:
    """Read plain text: paragraphs are what blank lines divide."""
    paragraphs = tuple(part for part in (paragraph.strip() for paragraph in _BLANK.split(text)) if part)
    return ParsedDocument("", (Section((), paragraphs),) if paragraphs else ())


def joined_lines(text: str) -> str:
    """A paragraph whose lines were broken for a page as one line; words that were divided are whole again."""
    text = re.sub(r"(?<=[a-z])-\n(?=[a-z])", "", text.strip())
    text = re.sub(rf"(?<=[{_HAN}])\s*\n\s*(?=[{_HAN}])", "", text)
    return re.sub(r"\s+", " ", text)


def decoded(content: bytes) -> str:
    """Bytes as text: by byte order mark, by what an HTML page declares, as UTF-8, or as GB 18030.

    Raises:
        UnreadableDocumentError: It is no text.
    """
    for mark, encoding in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if content.startswith(mark):
            return _strictly(content, encoding)
    if b"\0" in content:
        raise UnreadableDocumentError("it is a binary file, not text")
    declared = _CHARSET.search(content[:2048])
    encodings = [declared.group(1).decode("ascii")] if declared else []
    for encoding in (*encodings, "utf-8", "gb18030", "latin-1"):
        try:
            return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except (UnicodeDecodeError, LookupError):
            continue
    raise UnreadableDocumentError("its text encoding is not known")


def _strictly(content: bytes, encoding: str) -> str:
    try:
        return content.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise UnreadableDocumentError(f"it is broken: it says that it is {encoding}, and is not") from error
