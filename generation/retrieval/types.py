"""What retrieval hands over: frozen, and free of heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Decision = Literal["answer", "ask", "did_you_mean", "unknown"]
Origin = Literal["file", "upload", "site", "message", "pair"]


@dataclass(frozen=True, slots=True)
class Hit:
    """A passage that was found.

    Args:
        chunk_id: Stable: the same text at the same place of the same document has the same id.
        document_id: Which document it is from.
        title: That document's title.
        heading_path: Headings above the passage, outermost first, without the document's title.
        anchor: Fragment that leads to the very place, without ``#``.
        page: Page number from 1, for documents that have pages.
        address: Where a person can open the document, without fragment.
        language: ISO 639-1 code, or ``und``.
        text: The passage.
        score: 0 to 1: how probable it is that the passage answers the question; 0 until it is ranked.
    """

    chunk_id: str
    document_id: str
    title: str
    heading_path: tuple[str, ...]
    anchor: str | None
    page: int | None
    address: str | None
    language: str
    text: str
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Citation:
    """Where a statement comes from.

    Args:
        number: From 1, as the answer's text refers to it: ``[1]``.
        chunk_id: The passage.
        document_id: The document.
        title: Its title.
        heading_path: Headings above the passage.
        anchor: Fragment, without ``#``.
        address: Where a person can open the document, without fragment.
        quote: The sentences that support the statement, word for word.
        page: Page number from 1, for documents that have pages.
    """

    number: int
    chunk_id: str
    document_id: str
    title: str
    heading_path: tuple[str, ...]
    anchor: str | None
    address: str | None
    quote: str
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to a question.

    Args:
        decision: ``answer``, ``ask`` (something is missing that the answer names), ``did_you_mean`` (suggestions are
            shown) or ``unknown`` (a person should take over).
        text: The statement with its citation marks, or what is asked; empty otherwise.
        citations: One for each mark.
        suggestions: Questions or headings that may have been meant.
        score: 0 to 1: how probable it is that the best passage answers the question.
    """

    decision: Decision
    text: str
    citations: tuple[Citation, ...]
    suggestions: tuple[str, ...]
    score: float


@dataclass(frozen=True, slots=True)
class Document:
    """A document that is known.

    Args:
        document_id: Stable: follows from the tenant and the source.
        source: The path, address or name that it was added from.
        origin: How it came.
        title: Its title.
        address: Where a person can open it.
        language: ISO 639-1 code, or ``und``.
        sha256: Of its bytes.
        chunks: How many passages it has.
        added_s: Unix time.
        collection: The folder or site that it is kept in step with, if any.
        metadata: What filters can ask for.
        approved_by: Who approved it, for question-and-answer pairs.
        tags: What it is filed under.
        etag: What the site said of this version of the page; asked with the next time.
        modified: When the site said that it was changed, in HTTP's words.
    """

    document_id: str
    source: str
    origin: Origin
    title: str
    address: str | None
    language: str
    sha256: str
    chunks: int
    added_s: float
    collection: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    approved_by: str | None = None
    tags: tuple[str, ...] = ()
    etag: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class Filters:
    """What a search is restricted to; everything that is given must hold.

    Args:
        languages: Languages of passages.
        document_ids: Documents.
        sources: What documents' sources, as `Document.source` has them, begin with.
        tags: All that documents must be filed under.
        collection: A folder or site that is kept in step.
        metadata: Entries that a document's metadata must have.
    """

    languages: tuple[str, ...] = ()
    document_ids: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    collection: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Upload:
    """A document given as bytes: an uploaded file, a pinned message or thread.

    Args:
        name: File name; its ending tells the format.
        content: The bytes.
        address: Where a person can open it, such as the message's link.
        title: Shown in citations; the document's own by default.
        origin: ``upload`` or ``message``.
        metadata: What filters can ask for.
        tags: What it is filed under.
        etag: What a site said of this version of the page.
        modified: When a site said that it was changed.
    """

    name: str
    content: bytes
    address: str | None = None
    title: str | None = None
    origin: Origin = "upload"
    metadata: Mapping[str, str] = field(default_factory=dict)
    tags: tuple[str, ...] = ()
    etag: str | None = None
    modified: str | None = None


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What keeping a folder or site in step has changed.

    Args:
        added: Documents that are new.
        changed: Documents whose content is another now.
        removed: Documents that are gone there, and so here.
        unchanged: Documents that were left alone.
        failed: Source and what is wrong with it, in one line.
    """

    added: int
    changed: int
    removed: int
    unchanged: int
    failed: tuple[tuple[str, str], ...] = ()
