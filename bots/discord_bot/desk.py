"""Where prompts are taken: acknowledge, make a prompt, hand it over, and tell at once what is not taken."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import aiohttp
import discord

from bots.conversation import Conversations
from bots.delivery.buttons import Button
from bots.delivery.content import View
from bots.delivery.dispatch import Dispatch
from bots.discord_bot import handles, views
from bots.discord_bot.attachments import Attachments
from bots.image_prompt import ImagePrompt
from bots.offers import Offers
from bots.request_records import RequestRecords
from bots.service import ChatService, Prompt
from bots.tenant_config import TenantConfigs
from bots.tenant_rules import TenantRules, Whence
from generation.errors import GenerationError
from workers.client import Client
from workers.contract import ReplyTo, tenant_of
from workers.errors import WorkersError

MakePrompt = Callable[[ReplyTo], Awaitable[Prompt | ImagePrompt]]

_ALREADY_ACKNOWLEDGED = 40060
_LONGEST_CHARS = 1_900
_SERVER_ERROR = 500
#: Between attempts to tell why something is not taken.
_NOTICE_PAUSES_S = (0.5, 1.0, 2.0, 4.0)

_log = logging.getLogger("palaver.discord")


@dataclass(frozen=True, slots=True)
class Desk:
    """What commands, messages and buttons work with.

    Attributes:
        front_end: Name of the events' stream.
        client: The queue.
        service: The road to it.
        dispatch: Deliveries.
        conversations: Histories.
        records: What was asked to be drawn.
        attachments: Fetches files.
        rules: What tenants have configured.
        configs: The same, to look at.
        offers: What can be done about refusals.
    """

    front_end: str
    client: Client
    service: ChatService
    dispatch: Dispatch
    conversations: Conversations
    records: RequestRecords
    attachments: Attachments
    rules: TenantRules
    configs: TenantConfigs
    offers: Offers

    async def take(self, interaction: discord.Interaction, make: MakePrompt, private: bool = False) -> None:
        """Answer a command or a button with a job.

        Args:
            interaction: Not yet acknowledged.
            make: Makes the prompt of where its answer goes.
            private: Whether only the user may see the answer.
        """
        message_id = await acknowledge(interaction, private)
        if message_id is None:
            return
        handle = replace(handles.of_interaction(interaction, private), message=message_id)
        prompt: Prompt | ImagePrompt | None = None
        try:
            prompt = await make(handle.reply_to(self.front_end))
            await self.dispatch.ask(await self.rules.apply(prompt, whence(interaction)))
        except (WorkersError, GenerationError) as error:
            _log.info("interaction %d is not taken: %s", interaction.id, error.code)
            job_id = prompt.job_id if prompt else ""
            text, buttons = await self.offers.told(error, job_id)
            await self.dispatch.decline(job_id, replace_with_notice(interaction, text, buttons))

    async def delete_pictures(self, job_id: str) -> None:
        """Delete the pictures of a job for good; whoever asks has been found to be allowed to."""
        event = await self.client.ended(job_id)
        for image in event.images if event else ():
            await self.client.delete_artifact(image.artifact_id, tenant=tenant_of(job_id), user="", moderator=True)

    async def answer(
        self, message: discord.Message, handle: handles.Handle, make: Callable[[ReplyTo], Awaitable[Prompt]]
    ) -> None:
        """Answer a message with a job.

        Args:
            message: What is answered.
            handle: Where.
            make: Makes the prompt of where its answer goes.
        """
        typing = asyncio.create_task(_type(message.channel))  # a sign of life that needs no Redis
        prompt: Prompt | None = None
        try:
            prompt = await make(handle.reply_to(self.front_end))
            await self.dispatch.ask(await self.rules.apply(prompt, whence_message(message)))
        except (WorkersError, GenerationError) as error:
            _log.info("message %d is not taken: %s", message.id, error.code)
            job_id = prompt.job_id if prompt else ""
            text, buttons = await self.offers.told(error, job_id)
            await self.dispatch.decline(job_id, reply(message, text, buttons))
        finally:
            await typing


async def _type(channel: discord.abc.Messageable) -> None:
    with contextlib.suppress(discord.HTTPException, discord.RateLimited):
        await channel.typing()


async def acknowledge(interaction: discord.Interaction, private: bool) -> str | None:
    """Show that something comes.

    Returns:
        Id of the message in which it will; None if this is not the first who answers, or Discord waited too long.
    """
    try:
        response = await interaction.response.defer(thinking=True, ephemeral=private)
    except discord.HTTPException as error:
        if error.code != _ALREADY_ACKNOWLEDGED:
            _log.warning("interaction %d cannot be acknowledged: code %d", interaction.id, error.code)
        return None
    return str(response.message_id or "") if response is not None else ""


async def replace_with_notice(interaction: discord.Interaction, text: str, buttons: Sequence[Button] = ()) -> bool:
    """Take back the acknowledgement that everybody sees, and tell the user alone; returns whether that was done."""
    under = _under(buttons) or discord.utils.MISSING

    async def tell() -> None:
        with contextlib.suppress(discord.NotFound):  # an attempt before has done it
            await interaction.delete_original_response()
        await interaction.followup.send(text[:_LONGEST_CHARS], view=under, ephemeral=True)

    return await _persistently(tell, f"interaction {interaction.id}")


async def whisper(interaction: discord.Interaction, text: str) -> None:
    """Tell the user alone, whether acknowledged before or not."""
    try:
        if interaction.response.is_done():
            await interaction.followup.send(text[:_LONGEST_CHARS], ephemeral=True)
        else:
            await interaction.response.send_message(text[:_LONGEST_CHARS], ephemeral=True)
    except discord.HTTPException as error:
        _log.info("interaction %d: its notice cannot be shown: code %d", interaction.id, error.code)


async def reply(message: discord.Message, text: str, buttons: Sequence[Button] = ()) -> bool:
    """Reply to a message, once however often this is called for it; returns whether that was done."""

    async def tell() -> None:
        await message.reply(text[:_LONGEST_CHARS], view=_under(buttons), nonce=f"n{message.id}")

    return await _persistently(tell, f"message {message.id}")


async def _persistently(tell: Callable[[], Awaitable[None]], what: str) -> bool:
    """Tell somebody why not: the library gives up at once on some of the errors that pass.

    Args:
        tell: Does it; may be called again.
        what: What it is about, for the log.

    Returns:
        Whether it was done.
    """
    for pause_s in (*_NOTICE_PAUSES_S, None):
        try:
            await tell()
        except (discord.HTTPException, discord.RateLimited, aiohttp.ClientError, OSError) as error:
            passing = not isinstance(error, discord.HTTPException) or error.status >= _SERVER_ERROR
            if pause_s is not None and passing:
                await asyncio.sleep(pause_s)
                continue
            _log.warning("%s: its notice cannot be shown: %s", what, type(error).__name__)
            return False
        return True
    return False


def _under(buttons: Sequence[Button]) -> Any:
    return views.buttons(View("", buttons=tuple(buttons)))


def whence(interaction: discord.Interaction) -> Whence:
    """Where a command or a press comes from."""
    roles = [role.id for role in interaction.user.roles] if isinstance(interaction.user, discord.Member) else []
    return _whence(interaction.channel, interaction.channel_id, roles, interaction.permissions.manage_guild)


def whence_message(message: discord.Message) -> Whence:
    """Where a message comes from."""
    roles = [role.id for role in message.author.roles] if isinstance(message.author, discord.Member) else []
    return _whence(message.channel, message.channel.id, roles, administers=False)


def _whence(channel: object, channel_id: int | None, roles: Iterable[int], administers: bool) -> Whence:
    parent = channel.parent_id if isinstance(channel, discord.Thread) else None
    channels = [str(each) for each in (channel_id, parent) if each is not None]
    nsfw = isinstance(channel, discord.TextChannel | discord.Thread | discord.VoiceChannel) and channel.is_nsfw()
    return Whence(channels, [str(role) for role in roles], nsfw, administers)


def is_moderator(interaction: discord.Interaction) -> bool:
    """Whether the user may act on others' jobs there."""
    return interaction.guild_id is not None and interaction.permissions.manage_messages
