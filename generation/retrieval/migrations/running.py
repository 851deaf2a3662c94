"""The store's schema is brought to the newest version when it is opened, under the writer's lock.

Alembic's versions; it is imported only where there is something to do.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from generation.errors import KnowledgeError

#: The newest version, which is that of ``schema.py``.
HEAD = "0002"
#: The database may have other tables with versions of their own.
VERSION_TABLE = "knowledge_version"
_FIRST = "0001"
_LOCK = "palaver.knowledge.schema"


def upgrade(connection: Connection, to: str = HEAD) -> None:
    """Bring the schema to a version.

    Args:
        connection: In a transaction that writes: all of it happens or nothing.
        to: Which version.

    Raises:
        KnowledgeError: The schema is newer than this release, or Alembic is missing.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SELECT pg_advisory_xact_lock(hashtext(:name))"), {"name": _LOCK})
    names = set(inspect(connection).get_table_names())
    found = (
        connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()
        if VERSION_TABLE in names
        else None
    )
    if found == to:
        return
    if found is not None and found > HEAD:
        raise KnowledgeError(
            f"The knowledge store has schema {found}, made by a newer release than this one; its newest is {HEAD}."
        )
    try:
        from alembic import command
        from alembic.config import Config
    except ModuleNotFoundError as error:
        raise KnowledgeError("The knowledge store needs another part: pip install 'palaver[knowledge]'.") from error
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    if found is None and {"tenants", "vectors"} <= names:
        command.stamp(config, _FIRST)  # made before versions were kept
    command.upgrade(config, to)
