"""Messages that are meant for the bot: mentions, replies, direct messages, and whatever is written in its threads."""

from __future__ import annotations

import logging
import re

import discord

from bots import answers
from bots.discord_bot import handles
from bots.discord_bot.desk import Desk, whence_message
from bots.discord_bot.support import SupportDesk
from bots.service import Prompt
from generation.errors import GenerationError
from workers.contract import ReplyTo
from workers.errors import WorkersError

_MENTION = re.compile(r"<[@#][!&]?\d+>")
_TITLE_CHARS = 80
_HAS_THREAD = 160004
_log = logging.getLogger("palaver.discord")

_KINDS = (discord.MessageType.default, discord.MessageType.reply)


class Messages:
    """Takes messages.

    Args:
        desk: Where prompts go.
        support: Hears what a person answers, and what one is asked.
    """

    def __init__(self, desk: Desk, support: SupportDesk) -> None:
        self._desk = desk
        self._support = support

    async def on_message(self, message: discord.Message, me: discord.ClientUser) -> None:
        """Answer a message if it is meant for the bot."""
        if message.author.bot or message.webhook_id or message.type not in _KINDS:
            return
        text, meant = _without_mention(message.content, me), _meant_for(message, me)
        if await self._is_for_a_person(message, text, meant) or not meant:
            return
        if not text and not message.attachments:
            return

        handle = handles.of_message(message, await self._thread(message))

        async def make(reply: ReplyTo) -> Prompt:
            prompt = Prompt(
                platform=handles.PLATFORM,
                tenant=handles.tenant_of(message.guild.id if message.guild else None, message.author.id),
                channel=handle.channel,
                user=str(message.author.id),
                conversation=handle.channel,
                key=f"m{message.id}",
                text=await self._desk.attachments.with_texts(text, message.attachments),
                reply=reply,
                attachments=tuple(each.filename for each in message.attachments),
            )
            supports = await self._desk.rules.supports(prompt.tenant, whence_message(message))
            return answers.answering(prompt) if supports else prompt

        await self._desk.answer(message, handle, make)

    async def _is_for_a_person(self, message: discord.Message, text: str, meant: bool) -> bool:
        """Whether a person answers it; in the channels for support one can be called for."""
        if not text or message.guild is None:
            return False
        tenant = handles.tenant_of(message.guild.id, message.author.id)
        try:
            may_open = meant and await self._desk.rules.supports(tenant, whence_message(message))
            return await self._support.heard(message, text, may_open)
        except (WorkersError, GenerationError) as error:
            _log.warning("message %d: no hand-over could be looked for: %s", message.id, error)
            return False

    async def _thread(self, message: discord.Message) -> int | None:
        """The thread that a mention is answered in, where the guild wants that; None for the channel itself."""
        if message.guild is None or not isinstance(message.channel, discord.TextChannel | discord.PartialMessageable):
            return None
        try:
            if not (await self._desk.configs.of(handles.tenant_of(message.guild.id, 0))).threads:
                return None
            words = _MENTION.sub("", message.content).split()
            thread = await message.create_thread(name=" ".join(words)[:_TITLE_CHARS] or "Answer")
        except WorkersError:
            return None  # the prompt will say what is wrong
        except discord.HTTPException as error:
            # The same event again finds the thread: it has the message's own id.
            return message.id if error.code == _HAS_THREAD else None
        return thread.id


def _meant_for(message: discord.Message, me: discord.ClientUser) -> bool:
    if message.guild is None or me in message.mentions:
        return True
    replied = message.reference.resolved if message.reference else None
    if isinstance(replied, discord.Message) and replied.author.id == me.id:
        return True
    return isinstance(message.channel, discord.Thread) and message.channel.owner_id == me.id


def _without_mention(text: str, me: discord.ClientUser) -> str:
    return re.sub(rf"<@!?{me.id}>", "", text).strip()
