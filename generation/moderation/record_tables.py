"""The tables of the record of decisions."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, ForeignKey, Index, Integer, LargeBinary, MetaData, String, Table

META = MetaData()
DECISIONS = Table(
    "moderation_decisions",
    META,
    Column("id", Integer, primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("expires_at_s", Float, nullable=False),
    Column("job_id", String(200), nullable=False),
    Column("tenant", String(80), nullable=False),
    Column("user_hash", String(64), nullable=False),
    Column("stage", String(20), nullable=False),
    Column("category", String(40), nullable=False),
    Column("score", Float, nullable=False),
    Column("threshold", Float, nullable=False),
    Column("action", String(20), nullable=False),
    Column("shadow", Boolean, nullable=False),
    Column("decided_by", String(120), nullable=False),
    Column("version", String(80), nullable=False),
    Index("moderation_decisions_job", "job_id"),
    Index("moderation_decisions_time", "tenant", "at_s"),
)
TEXTS = Table(
    "moderation_texts",
    META,
    Column("decision_id", ForeignKey("moderation_decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("sealed", LargeBinary, nullable=False),
)
APPEALS = Table(
    "moderation_appeals",
    META,
    Column("id", Integer, primary_key=True),
    Column("at_s", Float, nullable=False),
    Column("job_id", String(200), nullable=False, unique=True),
    Column("tenant", String(80), nullable=False),
    Column("user_hash", String(64), nullable=False),
    Column("status", String(20), nullable=False),
    Column("decided_at_s", Float),
    Column("moderator_hash", String(64)),
)
#: How the person who has appealed can be told the outcome; encrypted, and deleted once that is done.
ROUTES = Table(
    "moderation_appeal_routes",
    META,
    Column("appeal_id", ForeignKey("moderation_appeals.id", ondelete="CASCADE"), primary_key=True),
    Column("platform", String(40), nullable=False),
    Column("sealed", LargeBinary, nullable=False),
    Column("claimed_at_s", Float, nullable=False),
)
