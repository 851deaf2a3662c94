"""Revisions of tenants, labels, terms with their counts, validators of pages; vectors by chunk, signs by document."""

import json
from itertools import groupby

import numpy as np
import sqlalchemy as sa
from alembic import op

from generation.retrieval.indexes import index_of
from generation.retrieval.records import terms_in

revision = "0002"
down_revision = "0001"

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Change the tables, and index anew what they hold."""
    bind = op.get_bind()
    op.add_column("tenants", sa.Column("revision", sa.Integer, nullable=False, server_default="0"))
    op.add_column("documents", sa.Column("etag", sa.Text))
    op.add_column("documents", sa.Column("modified", sa.Text))
    if "terms" not in {column["name"] for column in sa.inspect(bind).get_columns("documents")}:
        op.add_column("documents", sa.Column("terms", sa.Integer, nullable=False, server_default="0"))
    op.create_table(
        "labels",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("document", _KEY, sa.ForeignKey("documents.id"), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("value", sa.Text, nullable=False),
    )
    op.create_index("labels_by_document", "labels", ["document"])
    op.create_table(
        "embeddings",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("chunk", _KEY, sa.ForeignKey("chunks.id"), nullable=False),
        sa.Column("model", _KEY, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("kinds", sa.Text, nullable=False),
        sa.Column("vectors", sa.LargeBinary, nullable=False),
    )
    op.create_index("embeddings_by_chunk", "embeddings", ["tenant_id", "model", "chunk"], unique=True)
    _make_indexes(bind)
    _label(bind)
    _index_terms(bind)
    _index_vectors(bind)
    op.drop_table("vectors")


def _make_indexes(bind: sa.Connection) -> None:
    if bind.dialect.name == "sqlite":
        statements = [
            # The FTS5 extension's own way of emptying a table without content.
            "INSERT INTO lexical(lexical) VALUES('delete-all')",
            "CREATE TABLE quantised (document INTEGER NOT NULL, model INTEGER NOT NULL, tenant_id INTEGER NOT NULL, "
            "revision INTEGER NOT NULL, chunks BLOB NOT NULL, bits BLOB NOT NULL, PRIMARY KEY (document, model))",
            "CREATE INDEX quantised_by_revision ON quantised (tenant_id, model, revision)",
            *_without_sqlite_vec(bind),
        ]
    else:
        statements = [
            "CREATE EXTENSION IF NOT EXISTS vector",
            "CREATE TABLE lexical (chunk bigint PRIMARY KEY, terms text[] NOT NULL)",
            "CREATE INDEX lexical_terms ON lexical USING gin (terms)",
            "CREATE TABLE term_counts (tenant_id bigint NOT NULL, term text NOT NULL, chunks bigint NOT NULL, "
            "PRIMARY KEY (tenant_id, term))",
        ]
    for statement in statements:
        bind.exec_driver_sql(statement)


def _without_sqlite_vec(bind: sa.Connection) -> list[str]:
    """Statements that remove its tables where it is no longer installed: a virtual table cannot be dropped then."""
    virtual = (
        bind.exec_driver_sql("SELECT name FROM sqlite_master WHERE sql LIKE 'CREATE VIRTUAL TABLE% USING vec0(%'")
        .scalars()
        .all()
    )
    parts = [
        name
        for table in virtual
        for name in bind.execute(
            sa.text("SELECT name FROM sqlite_master WHERE type = 'table' AND name GLOB :of"), {"of": f"{table}_*"}
        ).scalars()
    ]
    if not virtual:
        return []
    names = ", ".join(f"'{name}'" for name in virtual)
    return [
        *(f'DROP TABLE "{name}"' for name in parts),
        "PRAGMA writable_schema = ON",
        f"DELETE FROM sqlite_master WHERE name IN ({names})",
        "PRAGMA writable_schema = RESET",
    ]


def _label(bind: sa.Connection) -> None:
    for row in bind.execute(sa.text("SELECT id, tenant_id, metadata FROM documents")).all():
        for name, value in json.loads(row.metadata).items():
            bind.execute(
                sa.text("INSERT INTO labels(tenant_id, document, name, value) VALUES (:tenant, :row, :name, :value)"),
                {"tenant": row.tenant_id, "row": row.id, "name": name, "value": str(value)},
            )


def _index_terms(bind: sa.Connection) -> None:
    index = index_of(bind.dialect.name)
    chunks = bind.execute(
        sa.text(
            "SELECT chunks.id, chunks.document, chunks.tenant_id, heading_path, text, title "
            "FROM chunks JOIN documents ON documents.id = chunks.document ORDER BY chunks.document"
        )
    ).all()
    for document, rows in groupby(chunks, key=lambda row: row.document):
        total = 0
        for row in rows:
            terms = terms_in(row.title, tuple(json.loads(row.heading_path)), row.text)
            total += sum(terms.values())
            bind.execute(
                sa.text("UPDATE chunks SET terms = :terms WHERE id = :row"),
                {"row": row.id, "terms": json.dumps(terms, ensure_ascii=False, separators=(",", ":"))},
            )
            index.add_terms(bind, row.tenant_id, [(row.id, terms)])
        bind.execute(sa.text("UPDATE documents SET terms = :terms WHERE id = :row"), {"row": document, "terms": total})


def _index_vectors(bind: sa.Connection) -> None:
    index = index_of(bind.dialect.name)
    for model in bind.execute(sa.text("SELECT id, dimensions FROM models")).all():
        index.create(bind, model.id, model.dimensions)
        rows = bind.execute(
            sa.text(
                "SELECT chunks.document, chunks.tenant_id, vectors.chunk, vectors.kind, vectors.vector "
                "FROM vectors JOIN chunks ON chunks.id = vectors.chunk "
                "WHERE vectors.model = :model ORDER BY chunks.document, chunks.id, vectors.id"
            ),
            {"model": model.id},
        )
        for (document, tenant), group in groupby(rows, key=lambda row: (row.document, row.tenant_id)):
            held = list(group)
            for chunk, of_chunk in groupby(held, key=lambda row: row.chunk):
                mine = list(of_chunk)
                bind.execute(
                    sa.text(
                        "INSERT INTO embeddings(tenant_id, chunk, model, kinds, vectors) "
                        "VALUES (:tenant, :chunk, :model, :kinds, :vectors)"
                    ),
                    {
                        "tenant": tenant, "chunk": chunk, "model": model.id,
                        "kinds": ",".join(row.kind for row in mine), "vectors": b"".join(row.vector for row in mine),
                    },
                )  # fmt: skip
            matrix = np.frombuffer(b"".join(row.vector for row in held), np.float16).reshape(len(held), -1)
            index.add_vectors(bind, tenant, model.id, document, [row.chunk for row in held], matrix.astype(np.float32))
