"""What a hand-over consists of: who asks, the ticket, what is posted for it, and what was learnt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["waiting", "taken", "returned", "resolved"]
OPEN: tuple[State, ...] = ("waiting", "taken")
#: Where something is posted: the ticket's message in the team's channel, the thread below, or the customer's place.
Where = Literal["card", "team", "customer"]


@dataclass(frozen=True, slots=True)
class Customer:
    """Somebody who asks, and where.

    Attributes:
        platform: Which front-end.
        tenant: Guild or workspace.
        user: Who.
        conversation: Which conversation.
        channel: Where answers go.
        thread: In which thread there; empty for the channel itself.
        direct: Whether answers go to the person alone.
    """

    platform: str
    tenant: str
    user: str
    conversation: str
    channel: str
    thread: str = ""
    direct: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """One hand-over.

    Attributes:
        ticket_id: Its name, as buttons carry it.
        customer: Who asks.
        state: ``waiting``, ``taken``, ``returned`` or ``resolved``.
        reason: Why it was opened.
        question: What was asked last before it.
        summary: What the team reads first.
        team_channel: Where its message stands.
        card: That message; empty until it is posted.
        thread: The thread below it; empty likewise.
        taken_by: Who has taken it, as people read it.
        opened_s: Unix time.
    """

    ticket_id: str
    customer: Customer
    state: State
    reason: str
    question: str
    summary: str
    team_channel: str
    card: str
    thread: str
    taken_by: str
    opened_s: float


@dataclass(frozen=True, slots=True)
class Posting:
    """Something that is still to be posted, or shown anew.

    Attributes:
        number: In order.
        ticket_id: For which ticket.
        where: In which of its places.
        text: Markdown.
        buttons: Ids of the buttons below it.
        tries: How often it was tried.
    """

    number: int
    ticket_id: str
    where: Where
    text: str
    buttons: tuple[str, ...]
    tries: int


@dataclass(frozen=True, slots=True)
class Draft:
    """A question and an answer that a person gave, waiting for a moderator.

    Attributes:
        draft_id: Its name.
        tenant: Whose.
        ticket_id: Where it comes from.
        question: What was asked.
        answer: What was answered.
        state: ``pending``, ``approved`` or ``rejected``.
        times: How many hand-overs have said much the same.
        decided_by: Who decided.
    """

    draft_id: str
    tenant: str
    ticket_id: str
    question: str
    answer: str
    state: Literal["pending", "approved", "rejected"]
    times: int
    decided_by: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A question that was answered, or not.

    Attributes:
        question: What was asked.
        decision: What came of it.
        score: How probable the best passage was.
        helpful: How many said that the answer helped.
        unhelpful: How many said that it did not.
    """

    question: str
    decision: str
    score: float
    helpful: int
    unhelpful: int
