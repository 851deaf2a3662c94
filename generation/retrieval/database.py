"""A database of knowledge: opened, brought to the newest schema, read from and written to; its errors become ours."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError, SQLAlchemyError

from generation.errors import KnowledgeError
from generation.retrieval.indexes import Index, index_of
from generation.retrieval.migrations.running import upgrade

BUSY_TIMEOUT_MS = 30_000
_SQLITE_PRAGMAS = (
    f"busy_timeout={BUSY_TIMEOUT_MS}",
    "journal_mode=WAL",
    "synchronous=NORMAL",
    "secure_delete=ON",
    "cache_size=-65536",
    "mmap_size=1073741824",
)


class Database:
    """One database, SQLite or PostgreSQL.

    Args:
        url: SQLAlchemy's, such as ``sqlite:////var/lib/palaver/knowledge.sqlite`` or ``postgresql+psycopg://...``.

    Raises:
        KnowledgeError: It cannot be opened, or its schema is newer than this release.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self.index: Index = index_of(self._engine.dialect.name)
        with self.writing() as connection:
            upgrade(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read through: it sees one state, and waits for no writer."""
        with _mapped(), self._engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that writes: all of it or nothing."""
        options: dict[str, Any] = {"palaver_writes": True}
        if self._engine.dialect.name == "postgresql":
            options["isolation_level"] = "READ COMMITTED"  # who waited for a lock sees what its holder has written
        with _mapped(), self._engine.connect().execution_options(**options) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self._engine.dispose()


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
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            return _sqlite(parsed)
        if parsed.get_backend_name() != "postgresql":
            raise KnowledgeError(f"Knowledge is kept in SQLite or PostgreSQL, not in {parsed.get_backend_name()}.")
        # One state for all statements of a search.
        return create_engine(
            parsed.set(drivername="postgresql+psycopg"), pool_pre_ping=True, isolation_level="REPEATABLE READ"
        )
    except ArgumentError as error:
        raise KnowledgeError("The URL of the knowledge store is none, such as sqlite:////path/file.") from error
    except ModuleNotFoundError as error:
        raise KnowledgeError(
            f"The knowledge store needs {error.name}: pip install 'palaver[knowledge]', with PostgreSQL "
            "'palaver[knowledge,postgres]'."
        ) from error


def _sqlite(url: URL) -> Engine:
    from pysqlite3 import dbapi2  # the interpreter's own sqlite3 is often older, and built without FTS5

    if url.database and url.database != ":memory:":
        Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = create_engine(url, module=dbapi2)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say: see below
        cursor = connection.cursor()
        for pragma in _SQLITE_PRAGMAS:
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # A writer takes its lock at once: one that had read first could not be let in after another had written.
        writes = connection.get_execution_options().get("palaver_writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine
