"""Documents as passages: headings, places and paragraphs, cut to a size that a reader and an encoder can take in."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from generation.retrieval.language import language_of
from generation.retrieval.sentences import sentences_of

#: Longest chunk, in characters; a Chinese character says about as much as three Latin letters.
MAX_CHUNK_CHARS = 1500
LEAD_CHARS = 400
PASSAGE_CHARS = 300
_WORD = re.compile(r"[^\W\d_]{2,}|[\u3400-\u9fff]")
_NUMBERING = re.compile(r"^(?:chapter\s+)?\d+(?:\.\d+)*[.)]?\s+(?=\S)", re.IGNORECASE)
_FILE_ENDING = re.compile(r"\.[A-Za-z]{2,5}$")


@dataclass(frozen=True, slots=True)
class Section:
    """What stands under one heading.

    Args:
        heading_path: Headings above it, outermost first, without the document's title.
        paragraphs: Its text.
        anchor: Fragment that leads to it.
        page: Its page, from 1.
    """

    heading_path: tuple[str, ...]
    paragraphs: tuple[str, ...]
    anchor: str | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class ParsedDocument:
    """A document as parsers hand it over.

    Args:
        title: Its own title, or empty.
        sections: In reading order.
        language: Where the document itself declares one.
    """

    title: str
    sections: tuple[Section, ...]
    language: str | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage that can be cited.

    Args:
        chunk_id: Stable: follows from document, heading path and place under it, not from the text.
        heading_path: Headings above it.
        anchor: Fragment that leads to it.
        page: Its page.
        language: ISO 639-1 code.
        text: The passage.
        embedded: Kind of vector -> texts that are embedded for it.
    """

    chunk_id: str
    heading_path: tuple[str, ...]
    anchor: str | None
    page: int | None
    language: str
    text: str
    embedded: tuple[tuple[str, str], ...] = field(repr=False, default=())


def chunks_of(document_id: str, parsed: ParsedDocument, title: str) -> list[Chunk]:
    """Cut a document into chunks with stable ids.

    Args:
        document_id: Part of each chunk's id.
        parsed: The document.
        title: What it is called: the only heading of a passage that has none.
    """
    chunks: list[Chunk] = []
    seen: Counter[tuple[str, ...]] = Counter()
    for whole in parsed.sections:
        # A page's one great heading is its title again.
        section = replace(whole, heading_path=_below(whole.heading_path, title))
        for number, paragraphs in enumerate(_pieces(section.paragraphs)):
            seen[section.heading_path] += 1
            place = "\x1f".join((document_id, *section.heading_path, str(seen[section.heading_path])))
            text = "\n\n".join(paragraphs)
            chunks.append(
                Chunk(
                    chunk_id=hashlib.sha256(place.encode()).hexdigest()[:24],
                    heading_path=section.heading_path,
                    anchor=section.anchor,
                    page=section.page,
                    language=language_of(text) if len(text) > 20 else parsed.language or language_of(text),
                    text=text,
                    embedded=tuple(embedded_texts(section.heading_path or (title,), paragraphs, first=number == 0)),
                )
            )
    return chunks


def _below(heading_path: tuple[str, ...], title: str) -> tuple[str, ...]:
    return heading_path[1:] if heading_path[:1] == (title,) else heading_path


def _pieces(paragraphs: tuple[str, ...]) -> Iterable[list[str]]:
    """Paragraphs gathered up to the longest chunk; a longer paragraph is cut between sentences."""
    piece: list[str] = []
    size = 0
    for paragraph in _bounded(paragraphs, MAX_CHUNK_CHARS):
        if piece and size + len(paragraph) > MAX_CHUNK_CHARS:
            yield piece
            piece, size = [], 0
        piece.append(paragraph)
        size += len(paragraph)
    if piece:
        yield piece


def _bounded(paragraphs: Iterable[str], limit: int) -> Iterable[str]:
    for paragraph in paragraphs:
        if len(paragraph) <= limit:
            yield paragraph
            continue
        part = ""
        for sentence in sentences_of(paragraph):
            if part and len(part) + len(sentence) + 1 > limit:
                yield part
                part = ""
            part = f"{part} {sentence}" if part else sentence
            if len(part) > limit:  # a sentence that long is cut anywhere
                *cut, part = (part[start : start + limit] for start in range(0, len(part), limit))
                yield from cut
        if part:
            yield part


def embedded_texts(headings: tuple[str, ...], paragraphs: list[str], *, first: bool) -> Iterable[tuple[str, str]]:
    """What stands for a chunk in the space of vectors: its title, its title with its beginning, and its passages.

    Args:
        headings: Above it; at least the document's title.
        paragraphs: Its text.
        first: Whether it is the first chunk below its heading.

    Yields:
        Kind of vector and text.
    """
    # Numbers of sections say nothing of what is below them, nor does a title such as ``4711.txt``: they hide what does.
    title = _NUMBERING.sub("", headings[-1])
    title = title if _WORD.search(_FILE_ENDING.sub("", title)) else ""
    if first and title:
        yield "title", title
    beginning = " ".join(paragraphs)[:LEAD_CHARS]
    yield "lead", f"{title}\n{beginning}" if title else beginning
    passages = list(_bounded(paragraphs, PASSAGE_CHARS))
    if len(passages) > 1:
        for passage in passages:
            if len(passage) > 30:
                yield "passage", passage
