"""What the store of hand-overs keeps about a person: told, and deleted on that person's wish."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, select, update

from bots.handover.tables import asked, drafts, feedback, lines, postings, tickets
from bots.handover.tickets import OPEN

#: Tells whether a conversation is meant; None for all of them.
Only = Callable[[str], bool] | None


def learnt(connection: Connection, tenant: str | None, user: str | None, only: Only) -> list[tuple[str, str]]:
    """Tenant and name of approved drafts that were made of what a person has asked: the knowledge has them as well."""
    mine = set(_tickets(connection, tenant, user, only))
    query = select(drafts.c.tenant, drafts.c.draft_id, drafts.c.ticket_id)
    rows = connection.execute(query.where(*_of(drafts, tenant, user), drafts.c.state == "approved")).all()
    return [(row.tenant, row.draft_id) for row in rows if only is None or row.ticket_id in mine]


def forget(connection: Connection, tenant: str | None, user: str | None, only: Only) -> int:
    """Delete what a person has asked and said, drafts made of it included; returns how many hand-overs that were.

    Where only some conversations are forgotten, a hand-over that is open there goes on, without what was said so far:
    nobody is left waiting for it.
    """
    found = _tickets(connection, tenant, user, only)
    ids = list(found)
    kept = [ticket_id for ticket_id, state in found.items() if only is not None and state in OPEN]
    connection.execute(delete(lines).where(lines.c.ticket_id.in_(ids)))
    connection.execute(update(tickets).where(tickets.c.ticket_id.in_(kept)).values(question="", summary=""))
    gone = [ticket_id for ticket_id in ids if ticket_id not in kept]
    for table in (postings, tickets):
        connection.execute(delete(table).where(table.c.ticket_id.in_(gone)))
    if only is None:
        for table in (drafts, asked, feedback):
            connection.execute(delete(table).where(*_of(table, tenant, user)))
        return len(ids)
    connection.execute(delete(drafts).where(*_of(drafts, tenant, user), drafts.c.ticket_id.in_(ids)))
    query = select(asked.c.job_id, asked.c.conversation).where(*_of(asked, tenant, user))
    jobs = [row.job_id for row in connection.execute(query).all() if only(row.conversation)]
    for table in (asked, feedback):
        connection.execute(delete(table).where(table.c.job_id.in_(jobs)))
    return len(ids)


def kept(connection: Connection, tenant: str | None, user: str) -> list[dict[str, Any]]:
    """A person's hand-overs with all that was said in them, and the questions that documents were asked, as data."""
    told: list[dict[str, Any]] = []
    for ticket in connection.execute(select(tickets).where(*_of(tickets, tenant, user)).order_by(tickets.c.opened_s)):
        said = connection.execute(select(lines).where(lines.c.ticket_id == ticket.ticket_id).order_by(lines.c.at_s))
        words = [{"by": "team" if line.by_team else "you", "text": line.text} for line in said]
        told.append({"question": ticket.question, "state": ticket.state, "said": words})
    questions = select(asked.c.question).where(*_of(asked, tenant, user)).order_by(asked.c.at_s)
    return [*told, *({"question": row.question} for row in connection.execute(questions))]


def _of(table: Table, tenant: str | None, user: str | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if user is not None:
        conditions.append(table.c.user == user)
    if tenant is not None:
        conditions.append(table.c.tenant == tenant)
    return conditions


def _tickets(connection: Connection, tenant: str | None, user: str | None, only: Only) -> dict[str, str]:
    """States of tickets by their names."""
    query = select(tickets.c.ticket_id, tickets.c.state, tickets.c.conversation).where(*_of(tickets, tenant, user))
    rows = connection.execute(query).all()
    return {row.ticket_id: row.state for row in rows if only is None or only(row.conversation)}
