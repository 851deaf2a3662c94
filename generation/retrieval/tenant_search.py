"""What a search reads of a tenant's knowledge: every statement here carries the tenant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, and_, exists, func, or_, select

from generation.retrieval.indexes import Index
from generation.retrieval.records import Candidate, Model, candidate_of
from generation.retrieval.schema import chunks, documents, embeddings, labels
from generation.retrieval.types import Filters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class TenantSearch:
    """One state of what a tenant has, to search in.

    Args:
        connection: That sees the state.
        index: Of the database.
        tenant: The tenant's row.
    """

    def __init__(self, connection: Connection, index: Index, tenant: int) -> None:
        self._connection = connection
        self._index = index
        self._tenant = tenant

    def size(self) -> tuple[int, int]:
        """How many chunks the tenant has, and how many terms in them."""
        query = select(func.sum(documents.c.chunks), func.sum(documents.c.terms))
        row = self._connection.execute(query.where(documents.c.tenant_id == self._tenant)).one()
        return int(row[0] or 0), int(row[1] or 0)

    def sample(self, model: Model, limit: int) -> NDArray[np.float32]:
        """Some of the tenant's vectors, spread over all of them: ``(vectors, dimensions)``."""
        import numpy as np

        mine = (embeddings.c.tenant_id == self._tenant, embeddings.c.model == model.row)
        bounds = select(func.min(embeddings.c.chunk), func.max(embeddings.c.chunk)).where(*mine)
        first, last = self._connection.execute(bounds).one()
        if first is None:
            return np.zeros((0, model.dimensions), np.float32)
        rows = range(first, last + 1, max(1, 2 * (last - first) // limit))  # about two vectors each
        owners, matrix = self._read(model, *mine, embeddings.c.chunk.in_(rows))
        return matrix[[kind != "passage" for _, kind in owners]]

    def nearest_chunks(self, model: Model, query: NDArray[np.float32], limit: int, filters: Filters) -> list[int]:
        """Rows of the chunks that have about the nearest vectors: the quantised first pass."""
        return self._index.nearest(self._connection, self._tenant, model.row, query, limit, self._within(filters))

    def vectors(self, model: Model, rows: Sequence[int]) -> tuple[list[tuple[int, str]], NDArray[np.float32]]:
        """The exact vectors of chunks: chunk row and kind of each, and ``(vectors, dimensions) float32``."""
        mine = (embeddings.c.tenant_id == self._tenant, embeddings.c.model == model.row)
        return self._read(model, *mine, embeddings.c.chunk.in_(rows))

    def _read(self, model: Model, *conditions: Any) -> tuple[list[tuple[int, str]], NDArray[np.float32]]:
        import numpy as np

        query = select(embeddings.c.chunk, embeddings.c.kinds, embeddings.c.vectors).where(*conditions)
        found = self._connection.execute(query).all()
        halves = np.frombuffer(b"".join(row[2] for row in found), np.float16)
        owners = [(row[0], kind) for row in found for kind in row[1].split(",")]
        return owners, halves.reshape(len(owners), model.dimensions).astype(np.float32)

    def frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks each term occurs."""
        return self._index.frequencies(self._connection, self._tenant, terms)

    def chunks_containing(self, terms: Sequence[str], limit: int) -> list[int]:
        """Rows of chunks that have any of the terms."""
        return self._index.containing(self._connection, self._tenant, terms, limit)

    def candidates(self, rows: Sequence[int], filters: Filters) -> list[Candidate]:
        """Chunks by row: those of this tenant, whatever rows are asked for, that pass the filters."""
        query = (
            select(chunks, documents.c.document_id, documents.c.title, documents.c.address)
            .join(documents, documents.c.id == chunks.c.document)
            # Plus 0: SQLite would find the tenant's rows by index, all of them, instead of the few that are asked for.
            .where(chunks.c.id.in_(rows), chunks.c.tenant_id + 0 == self._tenant)
            .where(documents.c.tenant_id + 0 == self._tenant)
            .where(*_conditions(filters))
        )
        return [candidate_of(row) for row in self._connection.execute(query)]

    def _within(self, filters: Filters) -> Select[Any] | None:
        conditions = _conditions(filters)
        if not conditions:
            return None
        return (
            select(chunks.c.id)
            .join(documents, documents.c.id == chunks.c.document)
            .where(chunks.c.tenant_id == self._tenant, documents.c.tenant_id == self._tenant, *conditions)
        )


def _conditions(filters: Filters) -> list[Any]:
    conditions: list[Any] = []
    if filters.languages:
        conditions.append(chunks.c.language.in_(filters.languages))
    if filters.document_ids:
        conditions.append(documents.c.document_id.in_(filters.document_ids))
    if filters.sources:
        conditions.append(or_(*(documents.c.source.startswith(source, autoescape=True) for source in filters.sources)))
    if filters.collection is not None:
        conditions.append(documents.c.collection == filters.collection)
    for name, value in (*filters.metadata.items(), *(("tag", tag) for tag in filters.tags)):
        conditions.append(
            exists().where(and_(labels.c.document == documents.c.id, labels.c.name == name, labels.c.value == value))
        )
    return conditions
