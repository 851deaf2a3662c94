"""Shows what hand-overs have to show: from the store to the platform, in order for each ticket, until it is there."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from bots.delivery.surface import GoneError, SlowDownError
from bots.handover import wording
from bots.handover.opening import LateStore
from bots.handover.tickets import Customer, Posting, Ticket
from generation.errors import GenerationError
from workers.errors import WorkersError

_LOOK_S = 0.3
_PAUSE_S = 2.0
_LONGEST_PAUSE_S = 60.0

_log = logging.getLogger("palaver.handover")


class SupportPlatform(Protocol):
    """What a platform must be able to do for hand-overs. ``nonce`` is the same for the same posting, tried again."""

    async def open_card(self, ticket: Ticket, text: str, buttons: tuple[str, ...], nonce: str) -> tuple[str, str]:
        """Post a ticket's message and open a thread below it; returns both ids."""
        ...

    async def change_card(self, ticket: Ticket, text: str, buttons: tuple[str, ...]) -> None:
        """Show a ticket's message anew."""
        ...

    async def tell_team(self, ticket: Ticket, text: str, buttons: tuple[str, ...], nonce: str) -> None:
        """Post in a ticket's thread."""
        ...

    async def tell_customer(self, customer: Customer, text: str, nonce: str) -> None:
        """Post where the customer reads."""
        ...


class Relay:
    """Run ``run`` for as long as the process lives.

    Args:
        front_end: Name of the platform.
        store: What is to be shown.
        platform: Shows it.
    """

    def __init__(self, front_end: str, store: LateStore, platform: SupportPlatform) -> None:
        self._front_end = front_end
        self._store = store
        self._platform = platform

    async def run(self) -> None:
        """Show what is due until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._store.is_there:
                continue
            try:
                due = await asyncio.to_thread(lambda: self._store.open().claim(self._front_end))
                for posting in due:
                    await self._show(posting)
            except (GenerationError, WorkersError) as error:
                _log.warning("hand-overs wait: %s", error)
                await asyncio.sleep(_PAUSE_S)

    async def _show(self, posting: Posting) -> None:
        store = self._store.open()
        ticket = await asyncio.to_thread(store.of_posting, posting)
        if ticket is None:
            await asyncio.to_thread(store.posted, posting)
            return
        try:
            await self._post(ticket, posting)
        except SlowDownError as refusal:
            await asyncio.to_thread(store.postpone, posting, refusal.retry_after_s)
            return
        except GoneError:
            _log.warning("ticket %s: its %s is gone", ticket.ticket_id, posting.where)
            if posting.where == "customer":
                await asyncio.to_thread(store.post, ticket, "team", wording.UNDELIVERABLE)
            elif posting.where == "card" and await asyncio.to_thread(store.move, ticket, "returned", ""):
                # Nobody would ever see it: the customer is told, and the bot answers again.
                said = wording.to_customer("unreachable", ticket.question)
                await asyncio.to_thread(store.post, ticket, "customer", said)
        except Exception as error:  # noqa: BLE001 - whatever it was, it is shown later
            pause_s = min(_PAUSE_S * 2**posting.tries, _LONGEST_PAUSE_S)
            _log.warning("ticket %s: not shown yet (%s)", ticket.ticket_id, type(error).__name__)
            await asyncio.to_thread(store.postpone, posting, pause_s)
            return
        await asyncio.to_thread(store.posted, posting)

    async def _post(self, ticket: Ticket, posting: Posting) -> None:
        nonce = f"{ticket.ticket_id}-{posting.number}"
        if posting.where == "card" and not ticket.card:
            card, thread = await self._platform.open_card(ticket, posting.text, posting.buttons, nonce)
            await asyncio.to_thread(self._store.open().place_card, ticket.ticket_id, card, thread)
        elif posting.where == "card":
            await self._platform.change_card(ticket, posting.text, posting.buttons)
        elif posting.where == "team":
            await self._platform.tell_team(ticket, posting.text, posting.buttons, nonce)
        else:
            await self._platform.tell_customer(ticket.customer, posting.text, nonce)
