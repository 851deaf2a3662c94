"""The tables of the knowledge store, the same on SQLite and PostgreSQL; what indexes them differs by database.

A change here is a new file in ``migrations/versions``.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()
_Key = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only where the type is INTEGER

tenants = Table(
    "tenants",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("name", String(200), nullable=False, unique=True),
    Column("answer_threshold", Float),  # calibrated on the tenant's own questions
    Column("suggest_threshold", Float),
    Column("revision", Integer, nullable=False, server_default="0"),  # grows with every change of what the tenant has
)

models = Table(
    "models",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("name", String(400), nullable=False, unique=True),
    Column("dimensions", Integer, nullable=False),
    Column("state", String(10), nullable=False),  # "active" is searched; "filling" is on its way to be; "retired" was
)

documents = Table(
    "documents",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant_id", _Key, ForeignKey("tenants.id"), nullable=False),
    Column("document_id", String(32), nullable=False),
    Column("source", Text, nullable=False),
    Column("origin", String(10), nullable=False),
    Column("title", Text, nullable=False),
    Column("address", Text),
    Column("language", String(8), nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("chunks", Integer, nullable=False),
    Column("terms", Integer, nullable=False),  # of all its chunks, repetitions counted
    Column("added_s", Float, nullable=False),
    Column("collection", Text),
    Column("metadata", Text, nullable=False),  # JSON
    Column("approved_by", Text),
    Column("etag", Text),
    Column("modified", Text),
    UniqueConstraint("tenant_id", "document_id", name="documents_by_id"),
    Index("documents_by_collection", "tenant_id", "collection"),
)

labels = Table(  # what filters ask for: metadata entry by entry, and tags under the name "tag"
    "labels",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant_id", _Key, nullable=False),
    Column("document", _Key, ForeignKey("documents.id"), nullable=False),
    Column("name", String(200), nullable=False),
    Column("value", Text, nullable=False),
    Index("labels_by_document", "document"),
)

chunks = Table(
    "chunks",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant_id", _Key, nullable=False),
    Column("document", _Key, ForeignKey("documents.id"), nullable=False),
    Column("chunk_id", String(32), nullable=False),
    Column("heading_path", Text, nullable=False),  # JSON
    Column("anchor", Text),
    Column("page", Integer),
    Column("language", String(8), nullable=False),
    Column("text", Text, nullable=False),
    Column("terms", Text, nullable=False),  # JSON: term -> count; what the lexical index holds must be taken out again
    UniqueConstraint("tenant_id", "chunk_id", name="chunks_by_id"),
    Index("chunks_by_document", "document"),
)

embeddings = Table(  # a chunk's vectors for a model in one row: a search reads all of them or none
    "embeddings",
    metadata,
    Column("id", _Key, primary_key=True),
    Column("tenant_id", _Key, nullable=False),
    Column("chunk", _Key, ForeignKey("chunks.id"), nullable=False),
    Column("model", _Key, ForeignKey("models.id"), nullable=False),
    Column("kinds", Text, nullable=False),  # "title", "lead" or "passage" of each, with commas
    Column("vectors", LargeBinary, nullable=False),  # float16, of unit length, one after the other
    # One index alone: given a choice, SQLite would take one without the chunk for a search, and read all of a tenant.
    Index("embeddings_by_chunk", "tenant_id", "model", "chunk", unique=True),
)
