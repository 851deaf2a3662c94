"""Tuned adapters, by tenant and model: one database that every worker reads, so that a promotion reaches all of them.

It is the database of the knowledge: a file of the data directory, or PostgreSQL where there are several machines. What
a set was made of is kept as names of its sources alone, never as text: deleting a source leaves nothing behind.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    RowMapping,
    String,
    Table,
    Text,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import SQLAlchemyError

from generation.errors import AdapterError, KnowledgeError
from generation.tables import open_tables

State = Literal["candidate", "promoted", "retired"]

# Engines read it between two steps: a database that hangs must not hold them up for long.
_TIMEOUT_S = 5

metadata = MetaData()

adapters = Table(
    "chat_adapters",
    metadata,
    Column("adapter_id", String(80), primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("model", String(400), nullable=False),
    Column("identity", String(400), nullable=False),
    Column("state", String(20), nullable=False),
    Column("stale", Boolean, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("report", Text, nullable=False),
    Column("config", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("made_s", Float, nullable=False),
    Column("promoted_s", Float),
    Index("chat_adapters_by_tenant", "tenant", "identity"),
)

weights = Table(
    "chat_adapter_weights",
    metadata,
    Column("adapter_id", String(80), primary_key=True),
    Column("data", LargeBinary, nullable=False),
)

sources = Table(
    "chat_adapter_sources",
    metadata,
    Column("adapter_id", String(80), primary_key=True),
    Column("source", String(200), primary_key=True, index=True),
)


@dataclass(frozen=True, slots=True)
class TunedAdapter:
    """One adapter of one tenant.

    Attributes:
        adapter_id: Its name.
        tenant: Whose.
        model: The model that it belongs to, as it was named.
        identity: Which weights that is.
        state: ``candidate`` waits, ``promoted`` answers, ``retired`` has answered.
        stale: Whether something that it was trained on has been deleted since.
        fingerprint: Of the set and of how it was trained.
        report: What was measured, as ``generation.tuning.report`` writes it.
        sha256: Of its file.
        size_bytes: Likewise.
        made_s: Unix time.
        promoted_s: Unix time at which it was promoted last.
    """

    adapter_id: str
    tenant: str
    model: str
    identity: str
    state: State
    stale: bool
    fingerprint: str
    report: dict[str, Any] = field(repr=False)
    sha256: str
    size_bytes: int
    made_s: float
    promoted_s: float | None


class AdapterStore:
    """All tenants' adapters.

    Args:
        url: SQLAlchemy's.

    Raises:
        KnowledgeError: The database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_tables(url, metadata, "adapters", _TIMEOUT_S)

    @contextmanager
    def _begun(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            raise KnowledgeError(f"The store of adapters cannot be used: {type(error).__name__}.") from error

    def add(
        self,
        tenant: str,
        model: str,
        identity: str,
        fingerprint: str,
        config: dict[str, Any],
        data: bytes,
        report: dict[str, Any],
        source_ids: Collection[str],
    ) -> TunedAdapter:
        """Keep a new adapter, as a candidate.

        Args:
            tenant: Whose.
            model: The model's name.
            identity: Its weights.
            fingerprint: Of the set and of how it was trained.
            config: Its ``adapter_config.json``.
            data: Its safetensors file.
            report: What was measured.
            source_ids: Names of what it was trained on.
        """
        adapter_id = f"a{secrets.token_hex(6)}"
        values = {
            "adapter_id": adapter_id, "tenant": tenant, "model": model, "identity": identity, "state": "candidate",
            "stale": False, "fingerprint": fingerprint, "report": json.dumps(report), "config": json.dumps(config),
            "sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data), "made_s": time.time(),
            "promoted_s": None,
        }  # fmt: skip
        with self._begun() as connection:
            connection.execute(insert(adapters).values(**values))
            connection.execute(insert(weights).values(adapter_id=adapter_id, data=data))
            rows = [{"adapter_id": adapter_id, "source": source} for source in sorted(set(source_ids))]
            if rows:
                connection.execute(insert(sources), rows)
        return self.get(adapter_id)

    def get(self, adapter_id: str) -> TunedAdapter:
        """One by its id.

        Raises:
            AdapterError: There is none.
        """
        with self._begun() as connection:
            row = connection.execute(select(adapters).where(adapters.c.adapter_id == adapter_id)).mappings().first()
        if row is None:
            raise AdapterError(f"There is no adapter {adapter_id[:80]}. palaver adapters list shows what there is.")
        return _adapter(row)

    def all_of(self, tenant: str | None = None) -> list[TunedAdapter]:
        """A tenant's, or all, the newest first."""
        wanted = [adapters.c.tenant == tenant] if tenant else []
        with self._begun() as connection:
            query = select(adapters).where(*wanted).order_by(adapters.c.tenant, adapters.c.made_s.desc())
            return [_adapter(row) for row in connection.execute(query).mappings()]

    def answering(self, identity: str) -> dict[str, str]:
        """The promoted adapters of a model: tenant -> id."""
        with self._begun() as connection:
            query = select(adapters.c.tenant, adapters.c.adapter_id).where(
                adapters.c.identity == identity, adapters.c.state == "promoted"
            )
            return {row.tenant: row.adapter_id for row in connection.execute(query)}

    def file(self, adapter_id: str) -> tuple[dict[str, Any], bytes]:
        """Configuration and safetensors file.

        Raises:
            AdapterError: There is none, or its bytes are not what was stored.
        """
        with self._begun() as connection:
            together = adapters.join(weights, weights.c.adapter_id == adapters.c.adapter_id)
            query = select(adapters.c.config, adapters.c.sha256, weights.c.data).select_from(together)
            row = connection.execute(query.where(adapters.c.adapter_id == adapter_id)).first()
        if row is None:
            raise AdapterError("Its file is missing. Train it again: palaver train chat.")
        data = bytes(row.data)
        if hashlib.sha256(data).hexdigest() != row.sha256:
            raise AdapterError("Its file is not what was stored. Train it again: palaver train chat.")
        return json.loads(row.config), data

    def promote(self, adapter_id: str) -> TunedAdapter:
        """Have an adapter answer for its tenant, in place of the one that does.

        Raises:
            AdapterError: There is none, or it is stale.
        """
        found = self.get(adapter_id)
        if found.stale:
            raise AdapterError(
                f"{adapter_id} has learnt from something that was deleted since. Train again: palaver train chat."
            )
        with self._begun() as connection:
            _retire(connection, found.tenant, found.identity)
            connection.execute(
                update(adapters)
                .where(adapters.c.adapter_id == adapter_id)
                .values(state="promoted", promoted_s=time.time())
            )
        return self.get(adapter_id)

    def rollback(self, tenant: str, identity: str) -> TunedAdapter | None:
        """Have the adapter answer that did before; None where it is the model alone from now on."""
        of = (adapters.c.tenant == tenant, adapters.c.identity == identity)
        with self._begun() as connection:
            now = connection.execute(select(adapters).where(*of, adapters.c.state == "promoted")).mappings().first()
            if now is None:
                return None
            query = select(adapters).where(
                *of, adapters.c.state == "retired", adapters.c.promoted_s < now["promoted_s"]
            )
            before = connection.execute(query.order_by(adapters.c.promoted_s.desc())).mappings().first()
            # What is rolled back has never been promoted, so that a second rollback goes further back.
            changed = update(adapters).where(adapters.c.adapter_id == now["adapter_id"])
            connection.execute(changed.values(state="candidate", promoted_s=None))
            if before is None:
                return None
            chosen = update(adapters).where(adapters.c.adapter_id == before["adapter_id"])
            connection.execute(chosen.values(state="promoted"))
        return self.get(before["adapter_id"])

    def remove(self, adapter_id: str) -> bool:
        """Delete an adapter; if it answers, the model alone does from now on. Whether there was one."""
        with self._begun() as connection:
            for table in (weights, sources):
                connection.execute(delete(table).where(table.c.adapter_id == adapter_id))
            return bool(connection.execute(delete(adapters).where(adapters.c.adapter_id == adapter_id)).rowcount)

    def mark_stale(self, tenant: str, source_ids: Collection[str]) -> list[str]:
        """Something was deleted: a tenant's adapters that were trained on it answer no more.

        What a model has learnt it can say word for word, so that deleting the text alone would not do.

        Returns:
            Their ids.
        """
        with self._begun() as connection:
            query = (
                select(adapters.c.adapter_id)
                .join(sources, sources.c.adapter_id == adapters.c.adapter_id)
                .where(adapters.c.tenant == tenant, sources.c.source.in_(list(source_ids)))
                .distinct()
            )
            found = [str(row.adapter_id) for row in connection.execute(query)]
            stale = update(adapters).where(adapters.c.adapter_id.in_(found))
            connection.execute(stale.values(stale=True, state="candidate", promoted_s=None))
        return found

    def sources_of(self, adapter_id: str) -> set[str]:
        """Names of what an adapter was trained on."""
        with self._begun() as connection:
            query = select(sources.c.source).where(sources.c.adapter_id == adapter_id)
            return {str(row.source) for row in connection.execute(query)}

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _retire(connection: Connection, tenant: str, identity: str) -> None:
    connection.execute(
        update(adapters)
        .where(adapters.c.tenant == tenant, adapters.c.identity == identity, adapters.c.state == "promoted")
        .values(state="retired")
    )


def _adapter(row: RowMapping) -> TunedAdapter:
    found = dict(row)
    found["report"] = json.loads(found["report"])
    return TunedAdapter(**{name: found[name] for name in TunedAdapter.__slots__})
