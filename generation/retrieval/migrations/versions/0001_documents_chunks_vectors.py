"""Tenants, models, documents, chunks and vectors; on SQLite also the index of terms."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Make the tables."""
    op.create_table(
        "tenants",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("name", sa.String(200), nullable=False, unique=True),
        sa.Column("answer_threshold", sa.Float),
        sa.Column("suggest_threshold", sa.Float),
    )
    op.create_table(
        "models",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("name", sa.String(400), nullable=False, unique=True),
        sa.Column("dimensions", sa.Integer, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
    )
    _documents()
    op.create_table(
        "vectors",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("chunk", _KEY, sa.ForeignKey("chunks.id"), nullable=False),
        sa.Column("model", _KEY, sa.ForeignKey("models.id"), nullable=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("vector", sa.LargeBinary, nullable=False),
    )
    op.create_index("vectors_by_chunk", "vectors", ["chunk", "model"])
    if op.get_bind().dialect.name == "sqlite":
        for statement in (
            "CREATE VIRTUAL TABLE lexical USING fts5(terms, content='', detail=none, "
            "tokenize=\"unicode61 remove_diacritics 0 tokenchars '-._+/@:|'\")",
            "INSERT INTO lexical(lexical, rank) VALUES('secure-delete', 1)",
            "CREATE VIRTUAL TABLE vocabulary USING fts5vocab('lexical', 'row')",
        ):
            op.get_bind().exec_driver_sql(statement)


def _documents() -> None:
    op.create_table(
        "documents",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, sa.ForeignKey("tenants.id"), nullable=False),
        sa.Column("document_id", sa.String(32), nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("origin", sa.String(10), nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("chunks", sa.Integer, nullable=False),
        sa.Column("added_s", sa.Float, nullable=False),
        sa.Column("collection", sa.Text),
        sa.Column("metadata", sa.Text, nullable=False),
        sa.Column("approved_by", sa.Text),
        sa.UniqueConstraint("tenant_id", "document_id", name="documents_by_id"),
    )
    op.create_index("documents_by_collection", "documents", ["tenant_id", "collection"])
    op.create_table(
        "chunks",
        sa.Column("id", _KEY, primary_key=True),
        sa.Column("tenant_id", _KEY, nullable=False),
        sa.Column("document", _KEY, sa.ForeignKey("documents.id"), nullable=False),
        sa.Column("chunk_id", sa.String(32), nullable=False),
        sa.Column("heading_path", sa.Text, nullable=False),
        sa.Column("anchor", sa.Text),
        sa.Column("page", sa.Integer),
        sa.Column("language", sa.String(8), nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("terms", sa.Text, nullable=False),
        sa.UniqueConstraint("tenant_id", "chunk_id", name="chunks_by_id"),
    )
    op.create_index("chunks_by_document", "chunks", ["document"])
