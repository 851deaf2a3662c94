"""The store of what is known: one database for all tenants, and the one place where they are kept apart.

Everything but opening goes through `TenantRows`, which is bound to a tenant and puts that tenant into every statement;
nothing outside this module touches the tables.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Engine, Row, create_engine, delete, event, func, insert, literal, select, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import IntegrityError, OperationalError, SQLAlchemyError

from generation.errors import InvalidRequestError, KnowledgeError
from generation.retrieval import schema
from generation.retrieval.chunking import Chunk
from generation.retrieval.indexes import index_of
from generation.retrieval.schema import chunks, documents, models, tenants, vectors
from generation.retrieval.tokens import terms_of
from generation.retrieval.types import Document, Filters

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_TENANT_CHARS = 200
BUSY_TIMEOUT_MS = 30_000
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
        document: Row of its document.
        chunk_id: Its id.
        document_id: Its document's id.
        title: Its document's title.
        heading_path: Headings above it.
        anchor: Fragment.
        page: Page.
        address: Its document's address.
        language: ISO 639-1 code.
        text: The passage.
        terms: How often each of its terms occurs, those of its heading with more weight.
    """

    row: int
    document: int
    chunk_id: str
    document_id: str
    title: str
    heading_path: tuple[str, ...]
    anchor: str | None
    page: int | None
    address: str | None
    language: str
    text: str
    terms: Mapping[str, int]


class Store:
    """A database of knowledge.

    Args:
        url: SQLAlchemy's, such as ``sqlite:////var/lib/palaver/knowledge.sqlite`` or ``postgresql+psycopg://...``.

    Raises:
        KnowledgeError: It cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.engine = _engine(url)
        self.index = index_of(self.engine.dialect.name)
        with self.writing() as connection:
            schema.metadata.create_all(connection)
            self.index.prepare(connection)

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
            row = connection.execute(
                insert(models).values(name=name, dimensions=dimensions, state="active")
            ).inserted_primary_key
            number = _number(row)
            self.index.create(connection, number, dimensions)
        return self.active_model() or Model(number, name, dimensions, active=True)

    def models(self) -> list[Model]:
        """All models that have vectors here."""
        with self.reading() as connection:
            rows = connection.execute(select(models).order_by(models.c.id)).all()
        return [Model(row.id, row.name, row.dimensions, row.state == "active") for row in rows]

    def active_model(self) -> Model | None:
        """The model that is searched, if there is one yet."""
        return next((model for model in self.models() if model.active), None)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read through: it sees one state, and waits for no writer."""
        with _mapped(), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it or nothing."""
        with _mapped(), self.engine.connect().execution_options(palaver_writes=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()


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
        with self._store.writing() as connection:
            tenant = self._create(connection)
            self._remove(connection, tenant, document.document_id)
            terms = [_terms(document.title, piece) for piece in pieces]
            document_row = self._insert_document(connection, tenant, document, sum(sum(of.values()) for of in terms))
            rows = [
                self._insert_chunk(connection, tenant, document_row, piece, of)
                for piece, of in zip(pieces, terms, strict=True)
            ]
            self._index.add_terms(connection, tenant, list(zip(rows, terms, strict=True)))
            kinds = [(row, kind) for row, piece in zip(rows, pieces, strict=True) for kind, _ in piece.embedded]
            for part in embedded:
                self._insert_vectors(connection, tenant, part, kinds)

    def remove(self, document_id: str) -> bool:
        """Remove a document with everything that was made of it; whether it was there."""
        with self._store.writing() as connection:
            tenant = self._tenant(connection)
            return tenant is not None and self._remove(connection, tenant, document_id)

    def documents(self, collection: str | None = None) -> list[Document]:
        """The tenant's documents, oldest first."""
        with self._store.reading() as connection:
            tenant = self._tenant(connection)
            query = select(documents).where(documents.c.tenant_id == tenant).order_by(documents.c.id)
            if collection is not None:
                query = query.where(documents.c.collection == collection)
            return [_document(row) for row in connection.execute(query)]

    def document(self, document_id: str) -> Document | None:
        """One document."""
        with self._store.reading() as connection:
            query = select(documents).where(
                documents.c.tenant_id == self._tenant(connection), documents.c.document_id == document_id
            )
            row = connection.execute(query).one_or_none()
        return _document(row) if row is not None else None

    def thresholds(self) -> tuple[float | None, float | None]:
        """The scores for an answer and for a suggestion that were calibrated on this tenant's questions."""
        with self._store.reading() as connection:
            query = select(tenants.c.answer_threshold, tenants.c.suggest_threshold).where(tenants.c.name == self._name)
            row = connection.execute(query).one_or_none()
        return (row[0], row[1]) if row is not None else (None, None)

    def set_thresholds(self, answer: float | None, suggest: float | None) -> None:
        """Keep calibrated thresholds."""
        with self._store.writing() as connection:
            tenant = self._create(connection)
            connection.execute(
                update(tenants).where(tenants.c.id == tenant).values(answer_threshold=answer, suggest_threshold=suggest)
            )

    @contextmanager
    def searching(self) -> Iterator[TenantSearch | None]:
        """One state of the store to search in; None where the tenant has nothing."""
        with self._store.reading() as connection:
            tenant = self._tenant(connection)
            yield TenantSearch(connection, self._index, tenant) if tenant is not None else None

    def _tenant(self, connection: Connection) -> int | None:
        if self._known is None:
            query = select(tenants.c.id).where(tenants.c.name == self._name)
            self._known = connection.execute(query).scalar_one_or_none()
        return self._known

    def _create(self, connection: Connection) -> int:
        known = self._tenant(connection)
        if known is not None:
            return known
        row = connection.execute(insert(tenants).values(name=self._name)).inserted_primary_key
        return _number(row)  # not remembered: this transaction may still fail

    def _remove(self, connection: Connection, tenant: int, document_id: str) -> bool:
        mine = (documents.c.tenant_id == tenant, documents.c.document_id == document_id)
        row = connection.execute(select(documents.c.id).where(*mine)).scalar_one_or_none()
        if row is None:
            return False
        owned = chunks.c.document == row
        pieces = connection.execute(select(chunks.c.id, chunks.c.terms).where(owned)).all()
        vector_rows = connection.execute(
            select(vectors.c.id, vectors.c.model).join(chunks, chunks.c.id == vectors.c.chunk).where(owned)
        ).all()
        for model in {vector.model for vector in vector_rows}:
            rows = [vector.id for vector in vector_rows if vector.model == model]
            self._index.remove_vectors(connection, tenant, model, rows)
        self._index.remove_terms(connection, tenant, [(piece.id, json.loads(piece.terms)) for piece in pieces])
        connection.execute(delete(vectors).where(vectors.c.chunk.in_(select(chunks.c.id).where(owned))))
        connection.execute(delete(chunks).where(owned))
        connection.execute(delete(documents).where(documents.c.id == row))
        return True

    @staticmethod
    def _insert_document(connection: Connection, tenant: int, document: Document, terms: int) -> int:
        row = connection.execute(
            insert(documents).values(
                tenant_id=tenant,
                document_id=document.document_id,
                source=document.source,
                origin=document.origin,
                title=document.title,
                address=document.address,
                language=document.language,
                sha256=document.sha256,
                chunks=document.chunks,
                terms=terms,
                added_s=document.added_s,
                collection=document.collection,
                metadata=json.dumps(dict(document.metadata), ensure_ascii=False, sort_keys=True),
                approved_by=document.approved_by,
            )
        ).inserted_primary_key
        return _number(row)

    @staticmethod
    def _insert_chunk(
        connection: Connection, tenant: int, document: int, piece: Chunk, terms: Mapping[str, int]
    ) -> int:
        row = connection.execute(
            insert(chunks).values(
                tenant_id=tenant,
                document=document,
                chunk_id=piece.chunk_id,
                heading_path=json.dumps(piece.heading_path, ensure_ascii=False),
                anchor=piece.anchor,
                page=piece.page,
                language=piece.language,
                text=piece.text,
                terms=json.dumps(terms, ensure_ascii=False, separators=(",", ":")),
            )
        ).inserted_primary_key
        return _number(row)

    def _insert_vectors(
        self, connection: Connection, tenant: int, embedded: Embedded, kinds: Sequence[tuple[int, str]]
    ) -> None:
        import numpy as np

        halves = embedded.vectors.astype(np.float16)
        rows = [
            _number(
                connection.execute(
                    insert(vectors).values(
                        tenant_id=tenant, chunk=chunk, model=embedded.model.row, kind=kind, vector=half.tobytes()
                    )
                ).inserted_primary_key
            )
            for (chunk, kind), half in zip(kinds, halves, strict=True)
        ]
        self._index.add_vectors(connection, tenant, embedded.model.row, rows, embedded.vectors)


class TenantSearch:
    """One state of what a tenant has, to search in.

    Args:
        connection: That sees the state.
        index: Of the database.
        tenant: The tenant's row.
    """

    def __init__(self, connection: Connection, index: Any, tenant: int) -> None:
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

        mine = vectors.c.tenant_id == self._tenant
        first, last = self._connection.execute(select(func.min(vectors.c.id), func.max(vectors.c.id)).where(mine)).one()
        if first is None:
            return np.zeros((0, model.dimensions), np.float32)
        rows = range(first, last + 1, max(1, (last - first) // limit))
        query = select(vectors.c.vector).where(
            mine, vectors.c.id.in_(rows), vectors.c.model == model.row, vectors.c.kind != "passage"
        )
        found = self._connection.execute(query).scalars().all()
        return np.frombuffer(b"".join(found), np.float16).reshape(-1, model.dimensions).astype(np.float32)

    def nearest_chunks(self, model: Model, query: NDArray[np.float32], limit: int, filters: Filters) -> list[int]:
        """Rows of the chunks that have about the nearest vectors: the quantised first pass."""
        within = self._vectors_within(model, filters)
        rows = self._index.nearest(self._connection, self._tenant, model.row, query, limit, within)
        found = self._connection.execute(
            select(vectors.c.chunk).where(vectors.c.id.in_(rows), vectors.c.tenant_id == self._tenant).distinct()
        )
        return [row[0] for row in found]

    def vectors(self, model: Model, rows: Sequence[int]) -> tuple[list[tuple[int, str]], NDArray[np.float32]]:
        """The exact vectors of chunks: chunk row and kind of each, and ``(vectors, dimensions) float32``."""
        import numpy as np

        found = self._connection.execute(
            select(vectors.c.chunk, vectors.c.kind, vectors.c.vector).where(
                vectors.c.chunk.in_(rows), vectors.c.model == model.row, vectors.c.tenant_id == self._tenant
            )
        ).all()
        matrix = np.frombuffer(b"".join(row.vector for row in found), np.float16).reshape(len(found), model.dimensions)
        return [(row.chunk, row.kind) for row in found], matrix.astype(np.float32)

    def frequencies(self, terms: Sequence[str]) -> dict[str, int]:
        """In how many chunks each term occurs."""
        counts: dict[str, int] = self._index.frequencies(self._connection, self._tenant, terms)
        return counts

    def chunks_containing(self, terms: Sequence[str], limit: int) -> list[int]:
        """Rows of chunks that have any of the terms."""
        rows: list[int] = self._index.containing(self._connection, self._tenant, terms, limit)
        return rows

    def candidates(self, rows: Sequence[int], filters: Filters) -> list[Candidate]:
        """Chunks by row: those of this tenant, whatever rows are asked for, that pass the filters."""
        query = (
            select(chunks, documents.c.document_id, documents.c.title, documents.c.address)
            .join(documents, documents.c.id == chunks.c.document)
            .where(chunks.c.id.in_(rows), chunks.c.tenant_id == self._tenant, documents.c.tenant_id == self._tenant)
        )
        for condition in self._conditions(filters):
            query = query.where(condition)
        return [_candidate(row) for row in self._connection.execute(query)]

    def _vectors_within(self, model: Model, filters: Filters) -> str:
        conditions = self._conditions(filters)
        if not conditions:
            return ""
        query = (
            select(vectors.c.id)
            .join(chunks, chunks.c.id == vectors.c.chunk)
            .join(documents, documents.c.id == chunks.c.document)
            .where(vectors.c.tenant_id == literal(self._tenant), vectors.c.model == model.row, *conditions)
        )
        rows = self._connection.execute(query).scalars().all()
        return ", ".join(str(int(row)) for row in rows) or "-1"

    @staticmethod
    def _conditions(filters: Filters) -> list[Any]:
        conditions: list[Any] = []
        if filters.languages:
            conditions.append(chunks.c.language.in_(filters.languages))
        if filters.document_ids:
            conditions.append(documents.c.document_id.in_(filters.document_ids))
        if filters.collection is not None:
            conditions.append(documents.c.collection == filters.collection)
        for key, value in filters.metadata.items():
            entry = json.dumps({key: value}, ensure_ascii=False)[1:-1]
            conditions.append(documents.c.metadata.contains(entry, autoescape=True))
        return conditions


def _terms(title: str, piece: Chunk) -> dict[str, int]:
    """Terms of a chunk with their weights: a word of its own heading is worth several of the text."""
    headings = piece.heading_path or (title,)
    counts = Counter(terms_of(piece.text))
    for _ in range(HEADING_WEIGHT):
        counts.update(terms_of(headings[-1]))
    counts.update(terms_of("\n".join((title, *headings[:-1]))) if piece.heading_path else ())
    return dict(counts)


def _document(row: Any) -> Document:
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
        metadata=json.loads(row.metadata),
        approved_by=row.approved_by,
    )


def _candidate(row: Any) -> Candidate:
    return Candidate(
        row=row.id,
        document=row.document,
        chunk_id=row.chunk_id,
        document_id=row.document_id,
        title=row.title,
        heading_path=tuple(json.loads(row.heading_path)),
        anchor=row.anchor,
        page=row.page,
        address=row.address,
        language=row.language,
        text=row.text,
        terms=json.loads(row.terms),
    )


@contextmanager
def _mapped() -> Iterator[None]:
    """Errors of the database as ours."""
    try:
        yield
    except IntegrityError as error:
        raise KnowledgeError("Two processes changed the same document at once: try again.") from error
    except OperationalError as error:
        raise KnowledgeError(f"The knowledge store cannot be used: {_reason(error)}.") from error
    except SQLAlchemyError as error:
        raise KnowledgeError(f"The knowledge store failed: {_reason(error)}.") from error


def _reason(error: SQLAlchemyError) -> str:
    """The driver's first line: SQLAlchemy's own message would carry the statement's parameters, which are texts."""
    cause = getattr(error, "orig", None)
    lines = str(cause).splitlines() if cause is not None else []
    return lines[0].rstrip(".") if lines else type(error).__name__


def _engine(url: str) -> Engine:
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return create_engine(parsed, pool_pre_ping=True)
    import sqlite_vec
    from pysqlite3 import dbapi2  # the interpreter's own sqlite3 is often built without extensions

    if parsed.database and parsed.database != ":memory:":
        Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(parsed, module=dbapi2)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say: see below
        connection.enable_load_extension(True)
        sqlite_vec.load(connection)
        connection.enable_load_extension(False)
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout={BUSY_TIMEOUT_MS}",
            "journal_mode=WAL",
            "synchronous=NORMAL",
            "secure_delete=ON",
            "cache_size=-65536",
            "mmap_size=1073741824",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: one that had read first could not be let in after another had written.
        writes = connection.get_execution_options().get("palaver_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _number(key: Row[Any] | None) -> int:
    """The number of a row that was just inserted."""
    if key is None:
        raise KnowledgeError("The database does not tell the number of a new row.")
    return int(key[0])
