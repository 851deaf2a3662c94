"""SQLite's indexes: signs of vectors, kept in the database by document and compared in memory; FTS5 for terms."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, text

from generation.retrieval.bits import BitTable, signs, words_of
from generation.retrieval.indexes import Terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Of all tenants' signs together; whose turn was longest ago has to be read again. Five million vectors of 512 bits.
MAX_MEMORY_BYTES = 400 * 2**20


class SqliteIndex:
    """The indexes of an embedded store.

    Signs lie in one row a document and model, with the tenant's revision in which it was written. A process keeps those
    of the tenants that it searches, and reads what is new when the tenant's revision has grown. Terms carry the
    tenant's number as a prefix, so that no query can match another tenant's.
    """

    def __init__(self) -> None:
        self._tables: OrderedDict[tuple[int, int], BitTable] = OrderedDict()
        self._counts: dict[int, tuple[int, dict[str, int]]] = {}  # tenant -> revision, and terms that were asked for
        self._lock = threading.Lock()

    def lock(self, connection: Connection, tenant: int) -> None:
        """Nothing to do: SQLite has one writer."""

    def create(self, connection: Connection, model: int, dimensions: int) -> None:
        """Nothing to do: one table holds all models' signs."""

    def drop(self, connection: Connection, model: int) -> None:
        """Remove the vector index of a model."""
        connection.execute(text("DELETE FROM quantised WHERE model = :model"), {"model": model})

    def add_vectors(
        self,
        connection: Connection,
        tenant: int,
        model: int,
        document: int,
        chunks: Sequence[int],
        vectors: NDArray[np.float32],
    ) -> None:
        """Index all vectors of a document for a model, in place of what there was."""
        import numpy as np

        connection.execute(
            text(
                "INSERT OR REPLACE INTO quantised(document, model, tenant_id, revision, chunks, bits) "
                "SELECT :document, :model, id, revision, :chunks, :bits FROM tenants WHERE id = :tenant"
            ),
            {
                "document": document, "model": model, "tenant": tenant,
                "chunks": np.asarray(chunks, np.int64).tobytes(), "bits": signs(vectors).tobytes(),
            },
        )  # fmt: skip

    def remove_vectors(self, connection: Connection, tenant: int, document: int) -> None:
        """Take a document's vectors of all models out."""
        connection.execute(
            text("DELETE FROM quantised WHERE document = :document AND tenant_id = :tenant"),
            {"document": document, "tenant": tenant},
        )

    def nearest(
        self,
        connection: Connection,
        tenant: int,
        model: int,
        query: NDArray[np.float32],
        limit: int,
        within: Select[Any] | None,
    ) -> list[int]:
        """Row ids of the chunks of about the nearest vectors, by Hamming distance."""
        allowed = None if within is None else connection.execute(within).scalars().all()
        with self._lock:
            table = self._table(connection, tenant, model, len(query))
            return table.nearest(signs(query[None])[0], limit, allowed)

    def add_terms(self, connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms]) -> None:
        """Index the terms of chunks."""
        if terms_by_chunk:
            connection.execute(
                text("INSERT INTO lexical(rowid, terms) VALUES (:row, :terms)"),
                [{"row": row, "terms": _prefixed(tenant, terms)} for row, terms in terms_by_chunk],
            )

    def remove_terms(self, connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms]) -> None:
        """Take the terms of chunks out."""
        if terms_by_chunk:
            connection.execute(
                text("INSERT INTO lexical(lexical, rowid, terms) VALUES ('delete', :row, :terms)"),
                [{"row": row, "terms": _prefixed(tenant, terms)} for row, terms in terms_by_chunk],
            )

    def frequencies(self, connection: Connection, tenant: int, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks of the tenant each term occurs."""
        revision = _revision(connection, tenant)
        with self._lock:
            known_in, counts = self._counts.get(tenant, (-1, {}))
            if known_in != revision:
                counts = {}
                self._counts[tenant] = (revision, counts)
            for term in terms:
                if term not in counts:  # FTS5 counts a term's chunks one by one
                    key = {"term": f"{tenant}|{term}"}
                    found = connection.execute(text("SELECT doc FROM vocabulary WHERE term = :term"), key)
                    counts[term] = found.scalar() or 0
            return {term: counts[term] for term in terms}

    def containing(self, connection: Connection, tenant: int, terms: Sequence[str], limit: int) -> list[int]:
        """Row ids of chunks that have any of the terms."""
        if not terms:
            return []
        query = " OR ".join(f'"{tenant}|{term}"' for term in terms)
        found = connection.execute(
            text("SELECT rowid FROM lexical WHERE lexical MATCH :query LIMIT :limit"), {"query": query, "limit": limit}
        )
        return [row[0] for row in found]

    def _table(self, connection: Connection, tenant: int, model: int, dimensions: int) -> BitTable:
        """A tenant's signs, as new as what the connection sees."""
        table = self._tables.pop((tenant, model), None) or BitTable(words_of(dimensions))
        newest = _revision(connection, tenant)
        if table.revision != newest:
            _bring_up(table, connection, {"tenant": tenant, "model": model})
            table.revision = newest
        self._tables[tenant, model] = table
        while len(self._tables) > 1 and sum(each.size_bytes for each in self._tables.values()) > MAX_MEMORY_BYTES:
            self._tables.popitem(last=False)
        return table


def _revision(connection: Connection, tenant: int) -> int:
    found = connection.execute(text("SELECT revision FROM tenants WHERE id = :tenant"), {"tenant": tenant})
    return int(found.scalar_one())


def _bring_up(table: BitTable, connection: Connection, of: dict[str, int]) -> None:
    """Have a table hold the documents that the database has, in their versions."""
    import numpy as np

    mine = "FROM quantised WHERE tenant_id = :tenant AND model = :model"
    rows = connection.execute(text(f"SELECT document, revision {mine}"), of).all()
    stored: dict[int, int] = {row[0]: row[1] for row in rows}
    table.remove({document for document, revision in table.documents.items() if stored.get(document) != revision})
    new = [(revision, document) for document, revision in stored.items() if document not in table.documents]
    if not new:
        return
    since = min(revision for revision, _ in new)
    blocks = connection.execute(
        text(f"SELECT document, revision, chunks, bits {mine} AND revision >= :since"), of | {"since": since}
    )
    for document, revision, chunks, bits in blocks:
        if document not in table.documents:
            owners = np.frombuffer(chunks, np.int64)
            table.add(document, revision, owners, np.frombuffer(bits, np.uint64).reshape(len(owners), -1))


def _prefixed(tenant: int, terms: Iterable[str]) -> str:
    return " ".join(f"{tenant}|{term}" for term in terms)
