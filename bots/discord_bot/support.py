"""Hand-overs in Discord: a ticket is a message in the team's channel with a thread below it."""

from __future__ import annotations

import asyncio
from typing import Any

import discord

from bots.delivery.buttons import SUPPORT, Button, parse
from bots.delivery.content import View
from bots.delivery.splitting import split, utf16_units
from bots.delivery.surface import GoneError
from bots.discord_bot import handles, views
from bots.discord_bot.desk import is_moderator, whisper
from bots.discord_bot.faults import mapped
from bots.discord_bot.surfaces import LIMIT_CHARS
from bots.handover.desk import Handover
from bots.handover.learning import Learning
from bots.handover.tickets import Customer, Ticket
from workers.contract import ReplyTo

_HAS_THREAD = 160004
_TITLE_CHARS = 80
_REDIS_LIMIT_S = 2.0
_NONCE_CHARS = 25


def customer_of(tenant: str, conversation: str, reply: ReplyTo) -> Customer | None:
    """Who asked, from the handle of the answer."""
    handle = handles.read(reply)
    if handle is None or not conversation:
        return None
    direct = bool(handle.private) or not handle.installed
    return Customer(handles.PLATFORM, tenant, handle.user, conversation, handle.channel, direct=direct)


class DiscordSupport:
    """Shows hand-overs; see ``bots.handover.relay.SupportPlatform``.

    Args:
        client: Connected to the REST API at least.
    """

    def __init__(self, client: discord.Client) -> None:
        self._client = client

    async def open_card(self, ticket: Ticket, text: str, buttons: tuple[str, ...], nonce: str) -> tuple[str, str]:
        """Post a ticket's message and open its thread."""
        channel = self._channel(ticket.team_channel, ticket)
        card = await self._send(channel, text, buttons, nonce)
        try:
            with mapped():
                thread = await channel.get_partial_message(card).create_thread(name=_title(ticket))
        except discord.HTTPException as error:
            if error.code != _HAS_THREAD:
                raise
            return str(card), str(card)  # it was opened before; it has the message's own id
        return str(card), str(thread.id)

    async def change_card(self, ticket: Ticket, text: str, buttons: tuple[str, ...]) -> None:
        """Show a ticket's message anew."""
        message = self._channel(ticket.team_channel, ticket).get_partial_message(int(ticket.card))
        with mapped():
            await message.edit(content=text[:LIMIT_CHARS], view=_view(buttons))

    async def tell_team(self, ticket: Ticket, text: str, buttons: tuple[str, ...], nonce: str) -> None:
        """Post in a ticket's thread."""
        await self._send(self._channel(ticket.thread, ticket), text, buttons, nonce)

    async def tell_customer(self, customer: Customer, text: str, nonce: str) -> None:
        """Post where the customer reads."""
        place: Any = self._client.get_partial_messageable(int(customer.channel))
        if customer.direct:
            with mapped():
                user = await self._client.fetch_user(int(customer.user))
                place = await user.create_dm()
        await self._send(place, text, (), nonce)

    def _channel(self, channel: str, ticket: Ticket) -> Any:
        guild = ticket.customer.tenant.partition("-")[2]
        if not channel.isdecimal() or not guild.isdecimal():
            raise GoneError("the team's channel is none of this platform's")
        return self._client.get_partial_messageable(int(channel), guild_id=int(guild))

    async def _send(self, place: Any, text: str, buttons: tuple[str, ...], nonce: str) -> int:
        parts = [part.text for part in split(text, LIMIT_CHARS, utf16_units)]
        sent = 0
        for number, part in enumerate(parts):
            more: dict[str, Any] = {"view": _view(buttons)} if buttons and number == len(parts) - 1 else {}
            with mapped():
                message = await place.send(part, nonce=f"{nonce}-{number}"[:_NONCE_CHARS], **more)
            sent = int(message.id)
        return sent


class SupportDesk:
    """What people say and press in Discord, told to the hand-overs.

    Args:
        handover: Those.
        learning: What becomes of resolved ones.
    """

    def __init__(self, handover: Handover, learning: Learning) -> None:
        self._handover = handover
        self._learning = learning

    async def heard(self, message: discord.Message, text: str, may_open: bool) -> bool:
        """Hear a message of a guild first; returns whether it is a person's business."""
        if message.guild is None:
            return False
        tenant, key = handles.tenant_of(message.guild.id, message.author.id), f"m{message.id}"
        author, channel = message.author.display_name, str(message.channel.id)
        if await self._handover.team_said(tenant, channel, author, text, key):
            return True
        customer = Customer(handles.PLATFORM, tenant, str(message.author.id), channel, channel)
        return await self._handover.heard(customer, author, text, key, may_open)

    async def asked(self, interaction: discord.Interaction, question: str) -> bool:
        """Hear a question first; returns whether it is a person's business."""
        if interaction.guild_id is None:
            return False
        channel, user = str(interaction.channel_id), interaction.user
        tenant = handles.tenant_of(interaction.guild_id, user.id)
        customer = Customer(handles.PLATFORM, tenant, str(user.id), channel, channel)
        return await self._handover.heard(customer, user.display_name, question, f"i{interaction.id}", may_open=True)

    async def pressed(self, interaction: discord.Interaction, button: Button) -> None:
        """A button of a hand-over, or below an answer."""
        if button.action == "amend":
            await self._amend(interaction, button)
            return
        await interaction.response.defer(thinking=True, ephemeral=True)
        tenant, user = handles.tenant_of(interaction.guild_id, interaction.user.id), interaction.user
        moderator = is_moderator(interaction)
        told = await self._handover.pressed(button, tenant, str(user.id), user.display_name, moderator)
        await whisper(interaction, told)

    async def _amend(self, interaction: discord.Interaction, button: Button) -> None:
        tenant = handles.tenant_of(interaction.guild_id, interaction.user.id)
        if interaction.type is discord.InteractionType.component:
            async with asyncio.timeout(_REDIS_LIMIT_S):
                draft = next(
                    (each for each in await self._learning.drafts(tenant) if each.draft_id == button.job_id), None
                )
            if draft is None or not is_moderator(interaction):
                await whisper(interaction, "There is no such draft, or only a moderator can decide on it.")
                return
            form = views.prompt_form(button, draft.answer, title="Edit the answer", label="What is answered")
            await interaction.response.send_modal(form)
            return
        await interaction.response.defer(thinking=True, ephemeral=True)
        if not is_moderator(interaction):
            return
        answer, name = views.form_answer(interaction), interaction.user.display_name
        told = await self._learning.decide(tenant, button.job_id, approved=True, by=name, answer=answer)
        await whisper(interaction, told)


def is_support(button: Button) -> bool:
    """Whether a button is one of hand-overs."""
    return button.action in SUPPORT


def _view(buttons: tuple[str, ...]) -> discord.ui.View | None:
    known = tuple(button for button in map(parse, buttons) if button is not None)
    return views.buttons(View("", buttons=known))


def _title(ticket: Ticket) -> str:
    return " ".join(ticket.question.split())[:_TITLE_CHARS] or ticket.ticket_id
