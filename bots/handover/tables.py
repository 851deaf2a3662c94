"""The tables of hand-overs: tickets, what was said and is to be posted, drafts, questions and opinions of answers."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, Float, Integer, MetaData, String, Table, Text, UniqueConstraint

_ID_CHARS = 80

metadata = MetaData()

tickets = Table(
    "support_tickets",
    metadata,
    Column("ticket_id", String(_ID_CHARS), primary_key=True),
    Column("platform", String(40), nullable=False),
    Column("tenant", String(200), nullable=False, index=True),
    Column("user", String(200), nullable=False),
    Column("conversation", String(200), nullable=False),
    Column("channel", String(200), nullable=False),
    Column("customer_thread", String(200), nullable=False),
    Column("direct", Boolean, nullable=False),
    Column("state", String(20), nullable=False),
    Column("reason", String(200), nullable=False),
    Column("question", Text, nullable=False),
    Column("summary", Text, nullable=False),
    Column("team_channel", String(200), nullable=False),
    Column("card", String(200), nullable=False),
    Column("thread", String(200), nullable=False),
    Column("taken_by", String(200), nullable=False),
    Column("opened_s", Float, nullable=False),
    # One open ticket for somebody's conversation, whoever opens it twice: empty once it is closed.
    Column("open_key", String(700), unique=True),
)

lines = Table(
    "support_lines",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("ticket_id", String(_ID_CHARS), nullable=False, index=True),
    Column("key", String(200), nullable=False, unique=True),  # the platform's own id of the event
    Column("by_team", Boolean, nullable=False),
    Column("author", String(200), nullable=False),
    Column("text", Text, nullable=False),
    Column("at_s", Float, nullable=False),
)

postings = Table(
    "support_postings",
    metadata,
    Column("number", Integer, primary_key=True),
    Column("ticket_id", String(_ID_CHARS), nullable=False, index=True),
    Column("platform", String(40), nullable=False),
    Column("place", String(20), nullable=False),
    Column("text", Text, nullable=False),
    Column("buttons", Text, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("due_s", Float, nullable=False),  # when it may be tried; later than now while somebody posts it
    sqlite_autoincrement=True,  # a number is never given twice: platforms take the same one for a repetition
)

drafts = Table(
    "support_drafts",
    metadata,
    Column("draft_id", String(_ID_CHARS), primary_key=True),
    Column("tenant", String(200), nullable=False, index=True),
    Column("ticket_id", String(_ID_CHARS), nullable=False),
    Column("user", String(200), nullable=False),
    Column("question", Text, nullable=False),
    Column("answer", Text, nullable=False),
    Column("state", String(20), nullable=False),
    Column("times", Integer, nullable=False),
    Column("decided_by", String(200), nullable=False),
    Column("at_s", Float, nullable=False),
)

asked = Table(
    "support_asked",
    metadata,
    Column("job_id", String(200), primary_key=True),
    Column("tenant", String(200), nullable=False, index=True),
    Column("user", String(200), nullable=False),
    Column("conversation", String(200), nullable=False),
    Column("question", Text, nullable=False),
    Column("decision", String(20), nullable=False),
    Column("score", Float, nullable=False),
    Column("at_s", Float, nullable=False),
)

feedback = Table(
    "support_feedback",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("tenant", String(200), nullable=False),
    Column("job_id", String(200), nullable=False),
    Column("user", String(200), nullable=False),
    Column("helpful", Boolean, nullable=False),
    UniqueConstraint("job_id", "user", name="one_opinion"),
)
