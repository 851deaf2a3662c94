"""What a database needs to find rows fast: the first pass over vectors, and terms. One class a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, text

from generation.errors import KnowledgeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Index(Protocol):
    """The indexes of one database. Every call names the tenant, and finds and changes that tenant's rows only."""

    def create(self, connection: Connection, model: int, dimensions: int) -> None:
        """Make the vector index of a model, if it is not there."""

    def drop(self, connection: Connection, model: int) -> None:
        """Remove the vector index of a model."""

    def add_vectors(
        self, connection: Connection, tenant: int, model: int, rows: Sequence[int], vectors: NDArray[np.float32]
    ) -> None:
        """Index vectors under their row ids."""

    def remove_vectors(self, connection: Connection, tenant: int, model: int, rows: Sequence[int]) -> None:
        """Take vectors out."""

    def nearest(
        self, connection: Connection, tenant: int, model: int, query: NDArray[np.float32], limit: int, within: str
    ) -> list[int]:
        """Row ids of about the nearest vectors; ``within`` is a subquery of allowed row ids, or empty."""

    def add_terms(
        self, connection: Connection, tenant: int, terms_by_chunk: Sequence[tuple[int, Mapping[str, int]]]
    ) -> None:
        """Index the terms of chunks."""

    def remove_terms(
        self, connection: Connection, tenant: int, terms_by_chunk: Sequence[tuple[int, Mapping[str, int]]]
    ) -> None:
        """Take the terms of chunks out; they must be those that were added."""

    def frequencies(self, connection: Connection, tenant: int, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks of the tenant each term occurs."""

    def containing(self, connection: Connection, tenant: int, terms: Sequence[str], limit: int) -> list[int]:
        """Row ids of chunks that have any of the terms."""


def _bits(vectors: NDArray[np.float32]) -> list[bytes]:
    """Signs of the components, one bit each."""
    import numpy as np

    return [row.tobytes() for row in np.packbits(vectors > 0, axis=1, bitorder="little")]


class SqliteIndex:
    """sqlite-vec for vectors, quantised to one bit a component and partitioned by tenant; FTS5 for terms.

    Terms carry the tenant's number as a prefix, so that no query can match another tenant's.
    """

    def prepare(self, connection: Connection) -> None:
        """Make the index of terms, if it is not there."""
        connection.execute(
            text(
                "CREATE VIRTUAL TABLE IF NOT EXISTS lexical USING fts5(terms, content='', detail=none, "
                "tokenize=\"unicode61 remove_diacritics 0 tokenchars '-._+/@:|'\")"
            )
        )
        connection.execute(text("INSERT INTO lexical(lexical, rank) VALUES('secure-delete', 1)"))
        connection.execute(text("CREATE VIRTUAL TABLE IF NOT EXISTS vocabulary USING fts5vocab('lexical', 'row')"))

    def create(self, connection: Connection, model: int, dimensions: int) -> None:
        """Make the vector index of a model, if it is not there."""
        connection.execute(
            text(
                f"CREATE VIRTUAL TABLE IF NOT EXISTS dense_{model:d} USING vec0("
                f"tenant_id INTEGER PARTITION KEY, embedding bit[{dimensions:d}])"
            )
        )

    def drop(self, connection: Connection, model: int) -> None:
        """Remove the vector index of a model."""
        connection.execute(text(f"DROP TABLE IF EXISTS dense_{model:d}"))

    def add_vectors(
        self, connection: Connection, tenant: int, model: int, rows: Sequence[int], vectors: NDArray[np.float32]
    ) -> None:
        """Index vectors under their row ids."""
        connection.execute(
            text(f"INSERT INTO dense_{model:d}(rowid, tenant_id, embedding) VALUES (:row, :tenant, vec_bit(:bits))"),
            [{"row": row, "tenant": tenant, "bits": bits} for row, bits in zip(rows, _bits(vectors), strict=True)],
        )

    def remove_vectors(self, connection: Connection, tenant: int, model: int, rows: Sequence[int]) -> None:
        """Take vectors out."""
        if rows:
            connection.execute(text(f"DELETE FROM dense_{model:d} WHERE rowid = :row"), [{"row": row} for row in rows])

    def nearest(
        self, connection: Connection, tenant: int, model: int, query: NDArray[np.float32], limit: int, within: str
    ) -> list[int]:
        """Row ids of about the nearest vectors, by Hamming distance."""
        restriction = f"AND rowid IN ({within})" if within else ""
        found = connection.execute(
            text(
                f"SELECT rowid FROM dense_{model:d} WHERE embedding MATCH vec_bit(:bits) AND k = :limit "
                f"AND tenant_id = :tenant {restriction}"
            ),
            {"bits": _bits(query[None])[0], "limit": limit, "tenant": tenant},
        )
        return [row[0] for row in found]

    def add_terms(
        self, connection: Connection, tenant: int, terms_by_chunk: Sequence[tuple[int, Mapping[str, int]]]
    ) -> None:
        """Index the terms of chunks."""
        connection.execute(
            text("INSERT INTO lexical(rowid, terms) VALUES (:row, :terms)"),
            [{"row": row, "terms": _prefixed(tenant, terms)} for row, terms in terms_by_chunk],
        )

    def remove_terms(
        self, connection: Connection, tenant: int, terms_by_chunk: Sequence[tuple[int, Mapping[str, int]]]
    ) -> None:
        """Take the terms of chunks out."""
        if terms_by_chunk:
            connection.execute(
                text("INSERT INTO lexical(lexical, rowid, terms) VALUES ('delete', :row, :terms)"),
                [{"row": row, "terms": _prefixed(tenant, terms)} for row, terms in terms_by_chunk],
            )

    def frequencies(self, connection: Connection, tenant: int, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks of the tenant each term occurs."""
        counts = {}
        for term in terms:
            key = {"term": f"{tenant}|{term}"}
            counts[term] = connection.execute(text("SELECT doc FROM vocabulary WHERE term = :term"), key).scalar() or 0
        return counts

    def containing(self, connection: Connection, tenant: int, terms: Sequence[str], limit: int) -> list[int]:
        """Row ids of chunks that have any of the terms."""
        if not terms:
            return []
        query = " OR ".join(f'"{tenant}|{term}"' for term in terms)
        found = connection.execute(
            text("SELECT rowid FROM lexical WHERE lexical MATCH :query LIMIT :limit"), {"query": query, "limit": limit}
        )
        return [row[0] for row in found]


def _prefixed(tenant: int, terms: Iterable[str]) -> str:
    return " ".join(f"{tenant}|{term}" for term in terms)


def index_of(dialect: str) -> Any:
    """The indexes of a database, by SQLAlchemy's name for its dialect."""
    if dialect != "sqlite":
        raise KnowledgeError(f"Knowledge is kept in SQLite; this release has no index for {dialect}.")
    return SqliteIndex()
