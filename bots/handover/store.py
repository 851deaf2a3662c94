"""What must outlive every process: tickets, what is still to be posted for them, drafts, and what was asked.

The tables lie beside the knowledge: in a file of the data directory, or in the same PostgreSQL database. Calls block
for milliseconds; front-ends make them from threads.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    RowMapping,
    and_,
    case,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from bots.handover import forgetting
from bots.handover.forgetting import Only
from bots.handover.similarity import alike
from bots.handover.tables import asked, drafts, feedback, lines, metadata, postings, tickets
from bots.handover.tickets import OPEN, Asked, Customer, Draft, Posting, State, Ticket, Where
from generation.errors import KnowledgeError
from generation.tables import open_tables

#: Longest wait for the database.
_TIMEOUT_S = 10
#: A process that has begun to post something and died has lost it to others after this long.
CLAIM_S = 30.0


class SupportStore:
    """All tenants' tickets, drafts and opinions.

    Args:
        url: SQLAlchemy's.

    Raises:
        KnowledgeError: The database cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_tables(url, metadata, "hand-overs", _TIMEOUT_S)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except IntegrityError:
            raise
        except SQLAlchemyError as error:
            raise KnowledgeError(f"The store of hand-overs cannot be used: {type(error).__name__}.") from error

    # Tickets

    def open_ticket(
        self, customer: Customer, reason: str, question: str, summary: str, team_channel: str
    ) -> tuple[Ticket, bool]:
        """Open a ticket, or find the one that is open; returns it and whether it is new."""
        ticket_id = f"t{secrets.token_hex(6)}"
        key = f"{customer.tenant} {customer.conversation} {customer.user}"
        values = {
            "ticket_id": ticket_id, "platform": customer.platform, "tenant": customer.tenant, "user": customer.user,
            "conversation": customer.conversation, "channel": customer.channel, "customer_thread": customer.thread,
            "direct": customer.direct, "state": "waiting", "reason": reason, "question": question, "summary": summary,
            "team_channel": team_channel, "card": "", "thread": "", "taken_by": "", "opened_s": time.time(),
            "open_key": key,
        }  # fmt: skip
        new = True
        try:
            with self._writing() as connection:
                connection.execute(insert(tickets).values(**values))
        except IntegrityError:
            new = False
        found = self.open_for(customer)
        if found is None:
            raise KnowledgeError("The ticket was closed while it was opened; please ask again.")
        return found, new

    def open_for(self, customer: Customer) -> Ticket | None:
        """The open ticket of somebody in a conversation."""
        return self._one(
            tickets.c.tenant == customer.tenant,
            tickets.c.conversation == customer.conversation,
            tickets.c.user == customer.user,
            tickets.c.state.in_(OPEN),
        )

    def in_thread(self, tenant: str, thread: str) -> Ticket | None:
        """The ticket that a team talks about in a thread, open or closed."""
        return self._one(tickets.c.tenant == tenant, tickets.c.thread == thread, tickets.c.thread != "")

    def ticket(self, tenant: str, ticket_id: str) -> Ticket | None:
        """A tenant's ticket."""
        return self._one(tickets.c.tenant == tenant, tickets.c.ticket_id == ticket_id)

    def of_posting(self, posting: Posting) -> Ticket | None:
        """The ticket that something is posted for."""
        return self._one(tickets.c.ticket_id == posting.ticket_id)

    def move(self, ticket: Ticket, state: State, by: str) -> bool:
        """Change the state of an open ticket; whether it was still in the state that is known."""
        values: dict[str, object] = {"state": state, "taken_by": by}
        if state not in OPEN:
            values["open_key"] = None
        with self._writing() as connection:
            done = connection.execute(
                update(tickets)
                .where(tickets.c.ticket_id == ticket.ticket_id, tickets.c.state == ticket.state)
                .values(**values)
            )
        return bool(done.rowcount)

    def waiting(self, tenant: str) -> list[Ticket]:
        """A tenant's tickets that nobody has taken, the oldest first."""
        return self._all(tickets.c.tenant == tenant, tickets.c.state == "waiting")

    def place_card(self, ticket_id: str, card: str, thread: str) -> None:
        """The ticket's message and its thread are there."""
        with self._writing() as connection:
            connection.execute(update(tickets).where(tickets.c.ticket_id == ticket_id).values(card=card, thread=thread))

    def _one(self, *conditions: ColumnElement[bool]) -> Ticket | None:
        found = self._all(*conditions)
        return found[0] if found else None

    def _all(self, *conditions: ColumnElement[bool]) -> list[Ticket]:
        with self._writing() as connection:
            query = select(tickets).where(*conditions).order_by(tickets.c.opened_s)
            return [_ticket(row) for row in connection.execute(query).mappings()]

    # Lines and postings

    def say(self, ticket: Ticket, key: str, by_team: bool, author: str, text: str, shown: str) -> bool:
        """Record what was said in a hand-over and that the other side is to be told; whether it is new."""
        where: Where = "customer" if by_team else "team"
        try:
            with self._writing() as connection:
                connection.execute(
                    insert(lines).values(
                        ticket_id=ticket.ticket_id, key=f"{ticket.customer.tenant} {key}", by_team=by_team,
                        author=author, text=text, at_s=time.time(),
                    )
                )  # fmt: skip
                _post(connection, ticket, where, shown, ())
        except IntegrityError:
            return False
        return True

    def post(self, ticket: Ticket, where: Where, text: str, buttons: Sequence[str] = ()) -> None:
        """Have something posted."""
        with self._writing() as connection:
            _post(connection, ticket, where, text, buttons)

    def said_by_team(self, ticket: Ticket) -> list[str]:
        """What people of the team have said to the customer, in order."""
        with self._writing() as connection:
            query = select(lines.c.text).where(lines.c.ticket_id == ticket.ticket_id, lines.c.by_team)
            return [str(row.text) for row in connection.execute(query.order_by(lines.c.id))]

    def claim(self, platform: str, most: int = 20) -> list[Posting]:
        """Take what is due, for one process alone: the oldest of each ticket, so that their order is kept."""
        now_s = time.time()
        with self._writing() as connection:
            first = select(func.min(postings.c.number)).where(postings.c.platform == platform)
            query = select(postings).where(
                postings.c.number.in_(first.group_by(postings.c.ticket_id)), postings.c.due_s <= now_s
            )
            claimed = []
            for row in connection.execute(query.order_by(postings.c.number).limit(most)).all():
                taken = connection.execute(
                    update(postings)
                    .where(postings.c.number == row.number, postings.c.due_s == row.due_s)
                    .values(due_s=now_s + CLAIM_S, tries=row.tries + 1)
                )
                if taken.rowcount:
                    buttons = tuple(json.loads(row.buttons))
                    claimed.append(Posting(row.number, row.ticket_id, row.place, row.text, buttons, row.tries))
        return claimed

    def posted(self, posting: Posting) -> None:
        """It is shown."""
        with self._writing() as connection:
            connection.execute(delete(postings).where(postings.c.number == posting.number))

    def postpone(self, posting: Posting, seconds: float) -> None:
        """It could not be shown now."""
        with self._writing() as connection:
            connection.execute(
                update(postings).where(postings.c.number == posting.number).values(due_s=time.time() + seconds)
            )

    # Drafts

    def draft(self, ticket: Ticket, answer: str) -> Draft:
        """Make a draft of a resolved hand-over; one that says much the same is counted instead of repeated."""
        tenant = ticket.customer.tenant
        for known in self.drafts(tenant):
            if alike(known.question, ticket.question) and alike(known.answer, answer):
                with self._writing() as connection:
                    connection.execute(
                        update(drafts).where(drafts.c.draft_id == known.draft_id).values(times=known.times + 1)
                    )
                return self._draft(tenant, known.draft_id) or known
        draft_id = f"d{secrets.token_hex(6)}"
        with self._writing() as connection:
            connection.execute(
                insert(drafts).values(
                    draft_id=draft_id, tenant=tenant, ticket_id=ticket.ticket_id, user=ticket.customer.user,
                    question=ticket.question, answer=answer, state="pending", times=1, decided_by="",
                    at_s=time.time(),
                )
            )  # fmt: skip
        made = self._draft(tenant, draft_id)
        if made is None:
            raise KnowledgeError("The draft was deleted while it was made.")
        return made

    def drafts(self, tenant: str, state: str | None = "pending") -> list[Draft]:
        """A tenant's drafts, the most frequent first; None for those of every state."""
        wanted = [drafts.c.tenant == tenant, *([drafts.c.state == state] if state else [])]
        with self._writing() as connection:
            query = select(drafts).where(*wanted).order_by(drafts.c.times.desc(), drafts.c.at_s)
            return [_draft(row) for row in connection.execute(query).mappings()]

    def decide(
        self, tenant: str, draft_id: str, state: str, by: str, question: str | None = None, answer: str | None = None
    ) -> Draft | None:
        """Approve or reject a draft, perhaps in other words; None if there is none."""
        changed = {name: text for name, text in (("question", question), ("answer", answer)) if text}
        with self._writing() as connection:
            connection.execute(
                update(drafts)
                .where(drafts.c.tenant == tenant, drafts.c.draft_id == draft_id)
                .values(state=state, decided_by=by, **changed)
            )
        return self._draft(tenant, draft_id)

    def _draft(self, tenant: str, draft_id: str) -> Draft | None:
        with self._writing() as connection:
            query = select(drafts).where(drafts.c.tenant == tenant, drafts.c.draft_id == draft_id)
            row = connection.execute(query).mappings().first()
        return _draft(row) if row else None

    # What was asked

    def note(self, customer: Customer, job_id: str, question: str, decision: str, score: float) -> int:
        """Note what came of a question; returns how many of this person's latest ones in a row had no answer."""
        own = and_(
            asked.c.tenant == customer.tenant, asked.c.user == customer.user,
            asked.c.conversation == customer.conversation,
        )  # fmt: skip
        with self._writing() as connection:
            if connection.execute(select(asked.c.job_id).where(asked.c.job_id == job_id)).first() is None:
                connection.execute(
                    insert(asked).values(
                        job_id=job_id, tenant=customer.tenant, user=customer.user, question=question,
                        conversation=customer.conversation, decision=decision, score=score, at_s=time.time(),
                    )
                )  # fmt: skip
            since_s = connection.execute(
                select(func.max(tickets.c.opened_s)).where(
                    tickets.c.tenant == customer.tenant, tickets.c.user == customer.user,
                    tickets.c.conversation == customer.conversation,
                )
            ).scalar() or 0.0  # fmt: skip
            answered_s = (
                connection.execute(select(func.max(asked.c.at_s)).where(own, asked.c.decision == "answer")).scalar()
                or 0.0
            )
            last_s = max(since_s, answered_s)
            return int(connection.execute(select(func.count()).where(own, asked.c.at_s > last_s)).scalar() or 0)

    def judge(self, tenant: str, job_id: str, user: str, helpful: bool) -> None:
        """Keep somebody's opinion of an answer; a later one replaces it."""
        with self._writing() as connection:
            connection.execute(delete(feedback).where(feedback.c.job_id == job_id, feedback.c.user == user))
            connection.execute(insert(feedback).values(tenant=tenant, job_id=job_id, user=user, helpful=helpful))

    def report(self, tenant: str, limit: int = 50) -> list[Asked]:
        """Questions that were not answered, or whose answers did not help; the worst first."""
        good = func.coalesce(func.sum(case((feedback.c.helpful, 1), else_=0)), 0)
        bad = func.coalesce(func.sum(case((~feedback.c.helpful, 1), else_=0)), 0)
        query = (
            select(asked.c.question, asked.c.decision, asked.c.score, good.label("good"), bad.label("bad"))
            .select_from(asked.outerjoin(feedback, feedback.c.job_id == asked.c.job_id))
            .where(asked.c.tenant == tenant)
            .group_by(asked.c.job_id, asked.c.question, asked.c.decision, asked.c.score, asked.c.at_s)
            .having(or_(asked.c.decision != "answer", bad > good))
            .order_by(bad.desc(), asked.c.at_s.desc())
            .limit(limit)
        )
        with self._writing() as connection:
            return [
                Asked(row.question, row.decision, row.score, row.good, row.bad) for row in connection.execute(query)
            ]

    def learnt_from(self, tenant: str | None, user: str | None, only: Only = None) -> list[tuple[str, str]]:
        """Tenant and name of approved drafts made of what a person has asked: to be taken out of the knowledge."""
        with self._writing() as connection:
            return forgetting.learnt(connection, tenant, user, only)

    def opinions(self, tenant: str, limit: int = 500) -> list[Asked]:
        """Questions about whose answers people have an opinion, the latest first."""
        good = func.sum(case((feedback.c.helpful, 1), else_=0))
        bad = func.sum(case((~feedback.c.helpful, 1), else_=0))
        query = (
            select(asked.c.question, asked.c.decision, asked.c.score, good.label("good"), bad.label("bad"))
            .select_from(asked.join(feedback, feedback.c.job_id == asked.c.job_id))
            .where(asked.c.tenant == tenant, feedback.c.tenant == tenant)
            .group_by(asked.c.job_id, asked.c.question, asked.c.decision, asked.c.score, asked.c.at_s)
            .order_by(asked.c.at_s.desc())
            .limit(limit)
        )
        with self._writing() as connection:
            return [
                Asked(row.question, row.decision, row.score, row.good, row.bad) for row in connection.execute(query)
            ]

    def forget_user(self, tenant: str | None, user: str | None, only: Only = None) -> int:
        """Delete what a person has asked and said, drafts made of it included; returns how many hand-overs that were.

        Args:
            tenant: Where; None for everywhere.
            user: Who; None for everybody.
            only: In which conversations; hand-overs that are open there go on without what was said.
        """
        with self._writing() as connection:
            return forgetting.forget(connection, tenant, user, only)

    def kept_about(self, tenant: str | None, user: str) -> list[dict[str, Any]]:
        """What a person has asked and said, as plain data."""
        with self._writing() as connection:
            return forgetting.kept(connection, tenant, user)

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()


def _post(connection: Connection, ticket: Ticket, where: Where, text: str, buttons: Sequence[str]) -> None:
    connection.execute(
        insert(postings).values(
            ticket_id=ticket.ticket_id, platform=ticket.customer.platform, place=where, text=text,
            buttons=json.dumps(list(buttons)), tries=0, due_s=0.0,
        )
    )  # fmt: skip


def _ticket(row: RowMapping) -> Ticket:
    found = dict(row)
    customer = Customer(
        found["platform"], found["tenant"], found["user"], found["conversation"], found["channel"],
        found["customer_thread"], bool(found["direct"]),
    )  # fmt: skip
    own = (name for name in Ticket.__slots__ if name != "customer")
    return Ticket(customer=customer, **{name: found[name] for name in own})


def _draft(row: RowMapping) -> Draft:
    found = dict(row)
    return Draft(**{name: found[name] for name in Draft.__slots__})
