"""What a database needs to find rows fast: the first pass over vectors, and terms. One module a database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import Connection, Select

from generation.errors import KnowledgeError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: Row of a chunk and how often each of its terms occurs.
Terms = tuple[int, Mapping[str, int]]


class Index(Protocol):
    """The indexes of one database. Every call names the tenant, and finds and changes that tenant's rows only."""

    def lock(self, connection: Connection, tenant: int) -> None:
        """Have one writer of a tenant at a time, until the transaction ends."""

    def create(self, connection: Connection, model: int, dimensions: int) -> None:
        """Make the vector index of a model, if it is not there."""

    def drop(self, connection: Connection, model: int) -> None:
        """Remove the vector index of a model."""

    def add_vectors(
        self,
        connection: Connection,
        tenant: int,
        model: int,
        document: int,
        chunks: Sequence[int],
        vectors: NDArray[np.float32],
    ) -> None:
        """Index all vectors of a document for a model, in place of what there was; ``chunks`` has the owner of each."""

    def remove_vectors(self, connection: Connection, tenant: int, document: int) -> None:
        """Take a document's vectors of all models out."""

    def nearest(
        self,
        connection: Connection,
        tenant: int,
        model: int,
        query: NDArray[np.float32],
        limit: int,
        within: Select[Any] | None,
    ) -> list[int]:
        """Row ids of the chunks of about the nearest vectors; ``within`` selects the chunks that may be found."""

    def add_terms(self, connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms]) -> None:
        """Index the terms of chunks."""

    def remove_terms(self, connection: Connection, tenant: int, terms_by_chunk: Sequence[Terms]) -> None:
        """Take the terms of chunks out; they must be those that were added."""

    def frequencies(self, connection: Connection, tenant: int, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks of the tenant each term occurs."""

    def containing(self, connection: Connection, tenant: int, terms: Sequence[str], limit: int) -> list[int]:
        """Row ids of chunks that have any of the terms."""


def index_of(dialect: str) -> Index:
    """The indexes of a database, by SQLAlchemy's name for its dialect."""
    if dialect == "sqlite":
        from generation.retrieval.sqlite_index import SqliteIndex

        return SqliteIndex()
    if dialect == "postgresql":
        from generation.retrieval.postgres_index import PostgresIndex

        return PostgresIndex()
    raise KnowledgeError(f"Knowledge is kept in SQLite or PostgreSQL, not in {dialect}.")
