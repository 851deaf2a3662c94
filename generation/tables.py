"""Opening a store of a few tables beside the knowledge: in a file of the data directory, or in the same PostgreSQL."""

from __future__ import annotations

from sqlalchemy import Engine, MetaData, create_engine, event, func, make_url, select
from sqlalchemy.exc import SQLAlchemyError

from generation.errors import KnowledgeError

#: Any number that no other lock of the database has.
_SCHEMA_LOCK = 0x68616E64


def open_tables(url: str, metadata: MetaData, what: str, timeout_s: int) -> Engine:
    """Connect, and make the tables that are not there.

    Args:
        url: SQLAlchemy's; PostgreSQL is reached through psycopg whichever driver it names.
        metadata: The tables.
        what: Names the store in errors.
        timeout_s: Longest wait for another writer of a file, or for a server that does not answer.

    Raises:
        KnowledgeError: It cannot be opened.
    """
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() == "sqlite":
            engine = create_engine(parsed, connect_args={"timeout": timeout_s})
            event.listen(engine, "connect", _durable)
        else:
            limits = {"connect_timeout": timeout_s, "tcp_user_timeout": 1000 * timeout_s}
            parsed = parsed.set(drivername="postgresql+psycopg")
            engine = create_engine(parsed, connect_args=limits, pool_pre_ping=True)
    except (SQLAlchemyError, ImportError) as error:
        raise KnowledgeError(f"The store of {what} cannot be opened: {type(error).__name__}.") from error
    try:
        with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # processes that start together must not create at once
                connection.execute(select(func.pg_advisory_xact_lock(_SCHEMA_LOCK)))
            metadata.create_all(connection)
    except SQLAlchemyError as error:
        raise KnowledgeError(f"The store of {what} cannot be used: {type(error).__name__}.") from error
    return engine


def _durable(connection: object, _: object) -> None:
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a DB-API connection
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.close()
