"""The store of what is known: one database for all tenants, and the one place where they are kept apart.

Everything but opening goes through `TenantRows`, which is bound to a tenant and puts that tenant into every statement;
nothing outside this module, `tenant_search` and the indexes touches the tables.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Table, delete, insert, select, update

from generation.errors import InvalidRequestError
from generation.retrieval.chunking import Chunk
from generation.retrieval.database import Database
from generation.retrieval.indexes import Index
from generation.retrieval.records import (
    Embedded,
    Model,
    chunk_values,
    document_of,
    document_values,
    label_values,
    terms_in,
)
from generation.retrieval.schema import chunks, documents, embeddings, labels, models, tenants
from generation.retrieval.tenant_search import TenantSearch
from generation.retrieval.types import Document

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TENANT_CHARS = 200


class Store:
    """A database of knowledge.

    Args:
        url: SQLAlchemy's, such as ``sqlite:////var/lib/palaver/knowledge.sqlite`` or ``postgresql+psycopg://...``.

    Raises:
        KnowledgeError: It cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._database = Database(url)

    @property
    def index(self) -> Index:
        """The database's indexes."""
        return self._database.index

    def tenant(self, name: str) -> TenantRows:
        """What one tenant has.

        Raises:
            InvalidRequestError: The name is empty, too long or has control characters.
        """
        if not name or len(name) > MAX_TENANT_CHARS or not name.isprintable():
            raise InvalidRequestError("A tenant's name is 1 to 200 printable characters.")
        return TenantRows(self, name)

    def ensure_model(self, name: str, dimensions: int) -> Model:
        """The active model; on the first call, it becomes the named one."""
        active = self.active_model()
        if active is not None:
            return active
        with self.writing() as connection:
            values = {"name": name, "dimensions": dimensions, "state": "active"}
            number = inserted(connection, models, values)
            self.index.create(connection, number, dimensions)
        return self.active_model() or Model(number, name, dimensions, active=True)

    def models(self) -> list[Model]:
        """All models whose vectors are kept up."""
        with self.reading() as connection:
            rows = connection.execute(select(models).where(models.c.state != "retired").order_by(models.c.id)).all()
        return [Model(row.id, row.name, row.dimensions, row.state == "active") for row in rows]

    def active_model(self) -> Model | None:
        """The model that is searched, if there is one yet."""
        return next((model for model in self.models() if model.active), None)

    def reading(self) -> AbstractContextManager[Connection]:
        """A connection to read through: it sees one state, and waits for no writer."""
        return self._database.reading()

    def writing(self) -> AbstractContextManager[Connection]:
        """A transaction that writes: all of it or nothing."""
        return self._database.writing()

    def close(self) -> None:
        """Close every connection."""
        self._database.close()


class TenantRows:
    """What one tenant has: each statement here carries the tenant, and there is no other way to the tables.

    Args:
        store: The database.
        name: The tenant's name.
    """

    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name
        self._index = store.index
        self._known: int | None = None

    @property
    def name(self) -> str:
        """The tenant's name."""
        return self._name

    def put(self, document: Document, pieces: Sequence[Chunk], embedded: Sequence[Embedded]) -> None:
        """Store a document with its chunks and vectors in place of what it was before: all of it or nothing."""
        terms = [terms_in(document.title, piece.heading_path, piece.text) for piece in pieces]
        with self._changing() as (connection, tenant):
            self._remove(connection, tenant, document.document_id)
            values = document_values(document) | {"tenant_id": tenant, "terms": sum(sum(of.values()) for of in terms)}
            row = inserted(connection, documents, values)
            mine = {"tenant_id": tenant, "document": row}
            many_inserted(connection, labels, [entry | mine for entry in label_values(document)])
            rows = many_inserted(
                connection,
                chunks,
                [chunk_values(piece, of) | mine for piece, of in zip(pieces, terms, strict=True)],
            )
            self._index.add_terms(connection, tenant, list(zip(rows, terms, strict=True)))
            kinds = [(chunk, [kind for kind, _ in piece.embedded]) for chunk, piece in zip(rows, pieces, strict=True)]
            for part in embedded:
                insert_vectors(connection, self._index, tenant, row, kinds, part)

    def remove(self, document_id: str) -> bool:
        """Remove a document with everything that was made of it; whether it was there."""
        if self.document(document_id) is None:
            return False
        with self._changing() as (connection, tenant):
            return self._remove(connection, tenant, document_id)

    def documents(self, collection: str | None = None) -> list[Document]:
        """The tenant's documents, oldest first."""
        with self._store.reading() as connection:
            tenant = self._tenant(connection)
            query = select(documents).where(documents.c.tenant_id == tenant).order_by(documents.c.id)
            if collection is not None:
                query = query.where(documents.c.collection == collection)
            return [document_of(row) for row in connection.execute(query)]

    def document(self, document_id: str) -> Document | None:
        """One document."""
        with self._store.reading() as connection:
            query = select(documents).where(
                documents.c.tenant_id == self._tenant(connection), documents.c.document_id == document_id
            )
            row = connection.execute(query).one_or_none()
        return document_of(row) if row is not None else None

    def thresholds(self) -> tuple[float | None, float | None]:
        """The scores for an answer and for a suggestion that were calibrated on this tenant's questions."""
        with self._store.reading() as connection:
            query = select(tenants.c.answer_threshold, tenants.c.suggest_threshold).where(tenants.c.name == self._name)
            row = connection.execute(query).one_or_none()
        return (row[0], row[1]) if row is not None else (None, None)

    def set_thresholds(self, answer: float | None, suggest: float | None) -> None:
        """Keep calibrated thresholds."""
        with self._changing() as (connection, tenant):
            connection.execute(
                update(tenants).where(tenants.c.id == tenant).values(answer_threshold=answer, suggest_threshold=suggest)
            )

    @contextmanager
    def searching(self) -> Iterator[TenantSearch | None]:
        """One state of the store to search in; None where the tenant has nothing."""
        with self._store.reading() as connection:
            tenant = self._tenant(connection)
            yield TenantSearch(connection, self._index, tenant) if tenant is not None else None

    @contextmanager
    def _changing(self) -> Iterator[tuple[Connection, int]]:
        """A transaction that changes what the tenant has, and the tenant's row, which is made where it is missing."""
        with self._store.writing() as connection:
            tenant = self._tenant(connection)
            if tenant is None:
                tenant = inserted(connection, tenants, {"name": self._name})  # not remembered: this may still fail
            change(connection, self._index, tenant)
            yield connection, tenant

    def _tenant(self, connection: Connection) -> int | None:
        if self._known is None:
            query = select(tenants.c.id).where(tenants.c.name == self._name)
            self._known = connection.execute(query).scalar_one_or_none()
        return self._known

    def _remove(self, connection: Connection, tenant: int, document_id: str) -> bool:
        mine = (documents.c.tenant_id == tenant, documents.c.document_id == document_id)
        row = connection.execute(select(documents.c.id).where(*mine)).scalar_one_or_none()
        if row is None:
            return False
        owned = chunks.c.document == row
        pieces = connection.execute(select(chunks.c.id, chunks.c.terms).where(owned)).all()
        self._index.remove_vectors(connection, tenant, row)
        self._index.remove_terms(connection, tenant, [(piece.id, json.loads(piece.terms)) for piece in pieces])
        connection.execute(
            delete(embeddings).where(
                embeddings.c.tenant_id == tenant,
                embeddings.c.model.in_(select(models.c.id)),  # all of them; the index wants them named
                embeddings.c.chunk.in_([piece.id for piece in pieces]),
            )
        )
        connection.execute(delete(chunks).where(owned))
        connection.execute(delete(labels).where(labels.c.document == row))
        connection.execute(delete(documents).where(documents.c.id == row))
        return True


def change(connection: Connection, index: Index, tenant: int) -> None:
    """Begin to change what a tenant has: nobody else does until the transaction ends, and searches will notice."""
    index.lock(connection, tenant)
    connection.execute(update(tenants).where(tenants.c.id == tenant).values(revision=tenants.c.revision + 1))


def insert_vectors(
    connection: Connection,
    index: Index,
    tenant: int,
    document: int,
    kinds: Sequence[tuple[int, Sequence[str]]],
    embedded: Embedded,
) -> None:
    """Store and index all vectors of a document for one model; ``kinds`` has each chunk and what its vectors are of."""
    import numpy as np

    halves: NDArray[np.float16] = embedded.vectors.astype(np.float16)
    rows, start = [], 0
    for chunk, of in kinds:
        rows.append(
            {
                "tenant_id": tenant, "chunk": chunk, "model": embedded.model.row,
                "kinds": ",".join(of), "vectors": halves[start : start + len(of)].tobytes(),
            }
        )  # fmt: skip
        start += len(of)
    many_inserted(connection, embeddings, rows)
    owners = [chunk for chunk, of in kinds for _ in of]
    index.add_vectors(connection, tenant, embedded.model.row, document, owners, embedded.vectors)


def inserted(connection: Connection, table: Table, values: Mapping[str, Any]) -> int:
    """Insert a row; its number."""
    return many_inserted(connection, table, [values])[0]


def many_inserted(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> list[int]:
    """Insert rows; their numbers, in order."""
    if not rows:
        return []
    statement = insert(table).returning(table.c.id, sort_by_parameter_order=True)
    return list(connection.execute(statement, [dict(row) for row in rows]).scalars())
