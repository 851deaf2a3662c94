"""Hand-over: when a person takes over, what that person and the customer say to each other, and how it ends.

Nothing is posted here: what is to be shown is written into the store with what has changed, and ``relay`` shows it,
however often a process or the platform dies in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TypeVar

from bots import answers
from bots.conversation import Conversations
from bots.delivery.buttons import Button
from bots.handover import hours, triggers, wording
from bots.handover.learning import Learning
from bots.handover.opening import LateStore
from bots.handover.tickets import OPEN, Customer, State, Ticket
from bots.service import CONVERSATION
from bots.tenant_config import TenantConfig, TenantConfigs
from workers.client import Client
from workers.contract import Event, ReplyTo, tenant_of

#: Answers that were none, in a row, after which a person is called.
_UNSURE = 2
_TURNS = 6

#: Reads a customer off a reply handle: tenant, conversation, handle; None if it is none of this front-end's.
CustomerOf = Callable[[str, str, ReplyTo], Customer | None]

_T = TypeVar("_T")

_log = logging.getLogger("palaver.handover")


class Handover:
    """The hand-overs of one front-end.

    Args:
        store: Tickets.
        conversations: What was said before.
        configs: Which team, hours and topics a tenant has.
        client: Where ended jobs are found.
        learning: What becomes of resolved ones.
        customer_of: Reads reply handles.
    """

    def __init__(
        self,
        store: LateStore,
        conversations: Conversations,
        configs: TenantConfigs,
        client: Client,
        learning: Learning,
        customer_of: CustomerOf,
    ) -> None:
        self._store = store
        self._conversations = conversations
        self._configs = configs
        self._client = client
        self._learning = learning
        self._customer_of = customer_of

    # What customers say

    async def heard(self, customer: Customer, author: str, text: str, key: str, may_open: bool) -> bool:
        """Hear a customer before the bot does.

        Args:
            customer: Who speaks.
            author: By what name.
            text: What was said.
            key: The platform's own id of the event.
            may_open: Whether it is a question to the bot's knowledge, so that a person can be called for it.

        Returns:
            Whether it is a person's business, so that the bot keeps silent.
        """
        config = await self._configs.of(customer.tenant)
        if not config.team_channel:
            return False
        ticket = await self._call(lambda: self._store.open().open_for(customer))
        if ticket is not None:
            shown = f"**{answers.inert(author)}**: {answers.inert(text)}"
            await self._call(lambda: self._store.open().say(ticket, key, False, author, text, shown))
            return True
        reason = _reason(text, config) if may_open else None
        if reason is None:
            return False
        await self._open(customer, config, reason, text)
        return True

    async def called(self, customer: Customer, question: str) -> str:
        """Somebody wants a person; returns what to tell them."""
        config = await self._configs.of(customer.tenant)
        if not config.team_channel:
            return wording.NO_TEAM
        new = await self._open(customer, config, wording.REASONS["asked"], question)
        return wording.CALLED if new else wording.OPEN_ALREADY

    async def answered(self, event: Event) -> None:
        """An answer from knowledge is shown: note it, and call a person if there was none again."""
        customer = self._customer(event)
        if event.answer is None or customer is None:
            return
        question = await self._question(customer, event.job_id)
        # Who is asked for an order's number is being answered.
        decision = "answer" if event.answer.decision == "ask" else event.answer.decision
        score = event.answer.score
        unanswered = await self._call(
            lambda: self._store.open().note(customer, event.job_id, question, decision, score)
        )
        config = await self._configs.of(customer.tenant)
        if config.team_channel and decision != "answer" and unanswered >= _UNSURE:
            await self._open(customer, config, wording.REASONS["unsure"], question)

    # What the team says and does

    async def team_said(self, tenant: str, thread: str, author: str, text: str, key: str) -> bool:
        """Somebody wrote in a thread; returns whether it is a ticket's, so that the customer reads it."""
        config = await self._configs.of(tenant)
        if not config.team_channel or not self._store.is_there:
            return False
        ticket = await self._call(lambda: self._store.open().in_thread(tenant, thread))
        if ticket is None:
            return False
        if ticket.state not in OPEN or not text.strip():
            return True  # people talk about it; the bot has no part in that
        shown = f"**{answers.inert(author)}**: {text}"
        await self._call(lambda: self._store.open().say(ticket, key, True, author, text, shown))
        return True

    async def pressed(self, button: Button, tenant: str, user: str, name: str, moderator: bool) -> str:
        """A button of a hand-over, or one below an answer; returns what to tell who pressed it.

        Args:
            button: Which.
            tenant: Where it was pressed.
            user: Who did.
            name: Likewise, as people read it.
            moderator: Whether drafts may be decided on.
        """
        match button.action:
            case "helpful" | "unhelpful":
                if tenant_of(button.job_id) != tenant:
                    return wording.GONE
                helpful = button.action == "helpful"
                await self._call(lambda: self._store.open().judge(tenant, button.job_id, user, helpful))
                return wording.THANKS
            case "human":
                return await self._called_below(button, tenant, user)
            case "take":
                return await self._move(tenant, button.job_id, "taken", name)
            case "giveback":
                return await self._move(tenant, button.job_id, "returned", name)
            case "resolve":
                return await self._move(tenant, button.job_id, "resolved", name)
            case "accept" | "reject":
                if not moderator:
                    return wording.NOT_A_MODERATOR
                return await self._learning.decide(tenant, button.job_id, button.action == "accept", name)
            case _:
                return wording.GONE

    async def _called_below(self, button: Button, tenant: str, user: str) -> str:
        event = await self._client.ended(button.job_id)
        customer = self._customer(event) if event is not None else None
        if event is None or customer is None or customer.tenant != tenant or customer.user != user:
            return wording.GONE
        return await self.called(customer, await self._question(customer, event.job_id))

    async def _move(self, tenant: str, ticket_id: str, state: State, name: str) -> str:
        ticket = await self._call(lambda: self._store.open().ticket(tenant, ticket_id))
        if (
            ticket is None
            or ticket.state not in OPEN
            or not await self._call(lambda: self._store.open().move(ticket, state, name))
        ):
            return wording.GONE
        store = self._store.open()
        moved = await self._call(lambda: store.ticket(tenant, ticket_id)) or ticket
        said = wording.to_customer(state, ticket.question, name=answers.inert(name))
        await self._call(lambda: store.post(moved, "customer", said))
        await self._call(lambda: store.post(moved, "card", wording.card(moved), _buttons(moved)))
        if ticket.state == "waiting":
            await self._move_up(tenant)
        if state == "resolved":
            return await self._learning.from_ticket(moved)
        return f"{wording.STATES[state][:1].upper()}{wording.STATES[state][1:]}."

    async def _move_up(self, tenant: str) -> None:
        """Tell those who wait that they wait less."""
        store = self._store.open()
        for position, ticket in enumerate(await self._call(lambda: store.waiting(tenant)), 1):
            said = wording.to_customer("moved", ticket.question, position=position)
            await self._call(lambda ticket=ticket, said=said: store.post(ticket, "customer", said))  # type: ignore[misc]

    # Opening

    async def _open(self, customer: Customer, config: TenantConfig, reason: str, question: str) -> bool:
        history = await self._conversations.history(customer.tenant, customer.conversation)
        author = f"{customer.platform}:{customer.user}"
        turns = [(turn.question, turn.answer) for turn in history.turns if turn.author == author][-_TURNS:]
        question = triggers.without_request(question) or (turns[-1][0] if turns else question)
        store = self._store.open()
        summary = wording.summary(question, reason, turns)
        ticket, new = await self._call(
            lambda: store.open_ticket(customer, reason, question, summary, config.team_channel)
        )
        if not new:
            return False
        _log.info("ticket %s is opened in %s", ticket.ticket_id, customer.tenant)
        waiting = await self._call(lambda: store.waiting(customer.tenant))
        position = next((at for at, each in enumerate(waiting, 1) if each.ticket_id == ticket.ticket_id), 1)
        await self._call(lambda: store.post(ticket, "card", wording.card(ticket), _buttons(ticket)))
        if said := wording.transcript(turns):
            await self._call(lambda: store.post(ticket, "team", said))
        told = wording.waits(ticket, position, _opening(config))
        await self._call(lambda: store.post(ticket, "customer", told))
        return True

    async def _question(self, customer: Customer, job_id: str) -> str:
        history = await self._conversations.history(customer.tenant, customer.conversation)
        return next((turn.question for turn in history.turns if turn.job_id == job_id), "")

    def _customer(self, event: Event) -> Customer | None:
        return self._customer_of(tenant_of(event.job_id), event.reply.handle.get(CONVERSATION, ""), event.reply)

    async def _call(self, work: Callable[[], _T]) -> _T:
        return await asyncio.to_thread(work)


def _reason(text: str, config: TenantConfig) -> str | None:
    """Why a person should take this; None if the bot may."""
    if triggers.wants_person(text):
        return wording.REASONS["asked"]
    if triggers.is_angry(text):
        return wording.REASONS["angry"]
    topic = triggers.topic_of(text, config.handover_topics)
    return f"about {answers.inert(topic)}" if topic else None


def _opening(config: TenantConfig) -> datetime | None:
    """When people are there next; None if they are there now, or nobody has said when."""
    if not config.working_hours:
        return None
    known, now = hours.parse(config.working_hours), datetime.now(UTC)
    return None if known.open_at(now) else known.next_opening(now)


def _buttons(ticket: Ticket) -> Sequence[str]:
    """What can be done with a ticket."""
    actions = {"waiting": ("take", "giveback", "resolve"), "taken": ("giveback", "resolve")}.get(ticket.state, ())
    return [Button(action, ticket.ticket_id).id for action in actions]  # type: ignore[arg-type]  # literals of Action
