"""PostgreSQL's indexes: pgvector for signs of vectors, an inverted index over arrays for terms."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Select, text

from generation.retrieval.indexes import Terms

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: A tenant with so many vectors, or a filter that leaves so many, is compared whole: exact, and soon done.
EXACT_VECTORS = 50_000
#: pgvector's greatest list of candidates.
_MAX_EF_SEARCH = 1000


class PostgresIndex:
    """The indexes of a PostgreSQL database, with pgvector 0.8 or newer.

    Terms carry the tenant's number as a prefix, so that no query can match another tenant's. In how many chunks each
    occurs is counted when it is written: counting when it is asked would read every chunk that has a common one.
    """

    def lock(self, connection: Connection, tenant: int) -> None:
        """Have one writer of a tenant at a time, until the transaction ends."""
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtext('palaver.knowledge'), :tenant)"), {"tenant": tenant}
        )

    def create(self, connection: Connection, model: int, dimensions: int) -> None:
        """Make the vector index of a model, if it is not there."""
        connection.execute(
            text(
                f"CREATE TABLE IF NOT EXISTS dense_{model:d} (id bigserial PRIMARY KEY, tenant_id bigint NOT NULL, "
                f"document bigint NOT NULL, chunk bigint NOT NULL, signs bit({dimensions:d}) NOT NULL)"
            )
        )
        for name, on in (
            ("signs", "USING hnsw (signs bit_hamming_ops)"),
            ("tenant", "(tenant_id)"),
            ("document", "(document)"),
            ("chunk", "(chunk)"),
        ):
            connection.execute(text(f"CREATE INDEX IF NOT EXISTS dense_{model:d}_{name} ON dense_{model:d} {on}"))

    def drop(self, connection: Connection, model: int) -> None:
        """Remove the vector index of a model."""
        connection.execute(text(f"DROP TABLE IF EXISTS dense_{model:d}"))

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
        named = {"tenant": tenant, "document": document}
        connection.execute(
            text(f"DELETE FROM dense_{model:d} WHERE document = :document AND tenant_id = :tenant"), named
        )
        if chunks:
            connection.execute(
                text(
                    f"INSERT INTO dense_{model:d}(tenant_id, document, chunk, signs) "
                    f"SELECT :tenant, :document, chunk, CAST(signs AS bit({vectors.shape[1]:d})) "
                    "FROM unnest(CAST(:chunks AS bigint[]), CAST(:signs AS text[])) AS new(chunk, signs)"
                ),
                {**named, "chunks": list(chunks), "signs": _signs(vectors)},
            )

    def remove_vectors(self, connection: Connection, tenant: int, document: int) -> None:
        """Take a document's vectors of all models out."""
        for model in connection.execute(text("SELECT id FROM models")).scalars().all():
            if connection.execute(text("SELECT to_regclass(:name)"), {"name": f"dense_{model:d}"}).scalar():
                connection.execute(
                    text(f"DELETE FROM dense_{model:d} WHERE document = :document AND tenant_id = :tenant"),
                    {"tenant": tenant, "document": document},
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
        named: dict[str, Any] = {"tenant": tenant, "signs": _signs(query[None])[0], "limit": limit}
        distance = f"signs <~> CAST(CAST(:signs AS text) AS bit({len(query):d}))"
        where = "tenant_id = :tenant"
        if within is not None:
            named["within"] = connection.execute(within).scalars().all()
            where += " AND chunk = ANY(:within)"
        if within is not None or self._is_small(connection, tenant, model):
            distance = f"({distance}) + 0"  # not what the approximate index orders by, so that it is left alone
        else:
            connection.execute(text("SET LOCAL hnsw.iterative_scan = relaxed_order"))
            connection.execute(text(f"SET LOCAL hnsw.ef_search = {min(limit, _MAX_EF_SEARCH):d}"))
        found = connection.execute(
            text(f"SELECT chunk FROM dense_{model:d} WHERE {where} ORDER BY {distance} LIMIT :limit"), named
        )
        return sorted({row[0] for row in found})

    def add_terms(self, connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms]) -> None:
        """Index the terms of chunks."""
        if not terms_by_chunk:
            return
        connection.execute(
            text("INSERT INTO lexical(chunk, terms) VALUES (:chunk, :terms)"),
            [{"chunk": chunk, "terms": _prefixed(tenant, terms)} for chunk, terms in terms_by_chunk],
        )
        self._count(connection, tenant, terms_by_chunk, 1)

    def remove_terms(self, connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms]) -> None:
        """Take the terms of chunks out."""
        if not terms_by_chunk:
            return
        connection.execute(
            text("DELETE FROM lexical WHERE chunk = ANY(:chunks)"), {"chunks": [chunk for chunk, _ in terms_by_chunk]}
        )
        self._count(connection, tenant, terms_by_chunk, -1)
        connection.execute(
            text("DELETE FROM term_counts WHERE tenant_id = :tenant AND chunks <= 0"), {"tenant": tenant}
        )

    def frequencies(self, connection: Connection, tenant: int, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks of the tenant each term occurs."""
        found = connection.execute(
            text("SELECT term, chunks FROM term_counts WHERE tenant_id = :tenant AND term = ANY(:terms)"),
            {"tenant": tenant, "terms": list(terms)},
        )
        counts = {term: int(chunks) for term, chunks in found}
        return {term: counts.get(term, 0) for term in terms}

    def containing(self, connection: Connection, tenant: int, terms: Sequence[str], limit: int) -> list[int]:
        """Row ids of chunks that have any of the terms."""
        if not terms:
            return []
        found = connection.execute(
            text("SELECT chunk FROM lexical WHERE terms && CAST(:terms AS text[]) LIMIT :limit"),
            {"terms": _prefixed(tenant, terms), "limit": limit},
        )
        return [row[0] for row in found]

    @staticmethod
    def _is_small(connection: Connection, tenant: int, model: int) -> bool:
        counted = connection.execute(
            text(
                f"SELECT count(*) FROM (SELECT 1 FROM dense_{model:d} WHERE tenant_id = :tenant LIMIT :most) AS counted"
            ),
            {"tenant": tenant, "most": EXACT_VECTORS},
        )
        return int(counted.scalar_one()) < EXACT_VECTORS

    @staticmethod
    def _count(connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms], by: int) -> None:
        counts = Counter(term for _, terms in terms_by_chunk for term in terms)
        if counts:
            connection.execute(
                text(
                    "INSERT INTO term_counts(tenant_id, term, chunks) "
                    "SELECT :tenant, term, chunks FROM unnest(CAST(:terms AS text[]), CAST(:counts AS bigint[])) "
                    "AS new(term, chunks) "
                    "ON CONFLICT (tenant_id, term) DO UPDATE SET chunks = term_counts.chunks + excluded.chunks"
                ),
                {"tenant": tenant, "terms": list(counts), "counts": [by * count for count in counts.values()]},
            )


def _signs(vectors: NDArray[np.float32]) -> list[str]:
    """Signs of the components in PostgreSQL's notation of bits."""
    import numpy as np

    return [row.tobytes().decode("ascii") for row in np.where(vectors > 0, ord("1"), ord("0")).astype(np.uint8)]


def _prefixed(tenant: int, terms: Iterable[str]) -> list[str]:
    return [f"{tenant}|{term}" for term in terms]
