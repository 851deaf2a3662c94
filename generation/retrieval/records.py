"""Rows of the store as frozen values, and back."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from generation.retrieval.chunking import Chunk
from generation.retrieval.tokens import terms_of
from generation.retrieval.types import Document, Hit

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

HEADING_WEIGHT = 3


@dataclass(frozen=True, slots=True)
class Model:
    """An embedding model whose vectors are stored.

    Args:
        row: Its number.
        name: Which model.
        dimensions: Length of its vectors.
        active: Whether it is the one that is searched; otherwise it is being filled.
    """

    row: int
    name: str
    dimensions: int
    active: bool


@dataclass(frozen=True, slots=True)
class Embedded:
    """The vectors of a document for one model.

    Args:
        model: Which model.
        vectors: ``(texts, dimensions) float32``: for each chunk in order, one for each of its embedded texts.
    """

    model: Model
    vectors: NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Candidate:
    """A chunk that a search has come across.

    Args:
        row: Its row.
        hit: The passage and its place, not yet scored.
        terms: How often each of its terms occurs, those of its heading with more weight.
    """

    row: int
    hit: Hit
    terms: Mapping[str, int]


def candidate_of(row: Any) -> Candidate:
    """A chunk's row, joined with its document's."""
    hit = Hit(
        chunk_id=row.chunk_id,
        document_id=row.document_id,
        title=row.title,
        heading_path=tuple(json.loads(row.heading_path)),
        anchor=row.anchor,
        page=row.page,
        address=row.address,
        language=row.language,
        text=row.text,
    )
    return Candidate(row.id, hit, json.loads(row.terms))


def document_of(row: Any) -> Document:
    """A document's row."""
    held = json.loads(row.metadata)
    return Document(
        document_id=row.document_id,
        source=row.source,
        origin=row.origin,
        title=row.title,
        address=row.address,
        language=row.language,
        sha256=row.sha256,
        chunks=row.chunks,
        added_s=row.added_s,
        collection=row.collection,
        metadata={name: value for name, value in held.items() if isinstance(value, str)},
        approved_by=row.approved_by,
        tags=tuple(held.get(TAGS, ())),
        etag=row.etag,
        modified=row.modified,
    )


#: Under it a document's metadata have its tags, which no entry of a single value can be named.
TAGS = "tags[]"


def document_values(document: Document) -> dict[str, Any]:
    """A document as values of its row, without tenant and terms."""
    held: dict[str, Any] = dict(document.metadata)
    if document.tags:
        held[TAGS] = list(document.tags)
    return {
        "document_id": document.document_id,
        "source": document.source,
        "origin": document.origin,
        "title": document.title,
        "address": document.address,
        "language": document.language,
        "sha256": document.sha256,
        "chunks": document.chunks,
        "added_s": document.added_s,
        "collection": document.collection,
        "metadata": json.dumps(held, ensure_ascii=False, sort_keys=True),
        "approved_by": document.approved_by,
        "etag": document.etag,
        "modified": document.modified,
    }


def label_values(document: Document) -> list[dict[str, str]]:
    """What filters can ask for, as rows."""
    entries = [{"name": name, "value": value} for name, value in document.metadata.items()]
    return entries + [{"name": "tag", "value": tag} for tag in document.tags]


def chunk_values(piece: Chunk, terms: Mapping[str, int]) -> dict[str, Any]:
    """A chunk as values of its row, without tenant and document."""
    return {
        "chunk_id": piece.chunk_id,
        "heading_path": json.dumps(piece.heading_path, ensure_ascii=False),
        "anchor": piece.anchor,
        "page": piece.page,
        "language": piece.language,
        "text": piece.text,
        "terms": json.dumps(terms, ensure_ascii=False, separators=(",", ":")),
    }


def terms_in(title: str, heading_path: tuple[str, ...], text: str) -> dict[str, int]:
    """Terms of a chunk with their weights: a word of its own heading is worth several of the text."""
    headings = heading_path or (title,)
    counts = Counter(terms_of(text))
    for _ in range(HEADING_WEIGHT):
        counts.update(terms_of(headings[-1]))
    counts.update(terms_of("\n".join((title, *headings[:-1]))) if heading_path else ())
    return dict(counts)
