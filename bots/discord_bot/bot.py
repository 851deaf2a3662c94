"""The connection to Discord: its events go to where they are dealt with."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import discord
from discord import app_commands

from bots.discord_bot.desk import whisper
from bots.discord_bot.messages import Messages
from bots.discord_bot.presses import Presses
from bots.settings import DiscordSettings
from workers.errors import WorkersError

#: Longer waits are told instead of slept through inside a call.
_LONGEST_WAIT_S = 30.0
#: After its last guild the library waits so long before it says that it is ready.
_GUILDS_S = 0.5
_SOMETHING_WRONG = "Something went wrong here. It is logged; please try again later."

_log = logging.getLogger("palaver.discord")


class Bot(discord.Client):
    """One process' connection.

    Args:
        settings: Token, addresses, intents, shard.
        trace: Reads limits off responses.
        set_up: Called once the application is known, before any event.
    """

    def __init__(
        self, settings: DiscordSettings, trace: aiohttp.TraceConfig, set_up: Callable[[Bot], Awaitable[None]]
    ) -> None:
        super().__init__(
            intents=intents(settings.message_content),
            # Neither models nor users ping anybody through this bot, in whatever kind of message.
            allowed_mentions=discord.AllowedMentions.none(),
            http_trace=trace,
            max_ratelimit_timeout=_LONGEST_WAIT_S,
            chunk_guilds_at_startup=False,
            member_cache_flags=discord.MemberCacheFlags.none(),
            max_messages=None,
            guild_ready_timeout=_GUILDS_S,
            heartbeat_timeout=settings.heartbeat_timeout_s,
            shard_id=settings.shard_id,
            shard_count=settings.shard_count,
        )
        self.tree = _Tree(
            self,
            allowed_installs=app_commands.AppInstallationType(guild=True, user=True),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=True, private_channel=True),
        )
        self._set_up = set_up
        self.messages: Messages | None = None
        self.presses: Presses | None = None

    async def setup_hook(self) -> None:
        """Prepare what events need; none has come yet."""
        await self._set_up(self)

    async def on_ready(self) -> None:
        """Say that it works."""
        _log.info("connected to Discord as %s", self.user.id if self.user else "?")

    async def on_message(self, message: discord.Message) -> None:
        """Answer it, if it is meant for the bot."""
        if self.messages is not None and self.user is not None:
            await self.messages.on_message(message, self.user)

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Act on buttons and forms; commands go through the tree."""
        if self.presses is not None:
            await self.presses.on_interaction(interaction)

    async def on_error(self, event_method: str, /, *args: Any, **kwargs: Any) -> None:
        """Log what nobody expected, without what was said."""
        del args, kwargs
        _log.exception("an event could not be dealt with: %s", event_method)


class _Tree(app_commands.CommandTree[Bot]):
    """Commands whose errors are told to the user alone."""

    async def on_error(self, interaction: discord.Interaction[Bot], error: app_commands.AppCommandError, /) -> None:
        """Tell the user."""
        cause = getattr(error, "original", error)
        if isinstance(cause, WorkersError):
            await whisper(interaction, str(cause))
            return
        if not isinstance(cause, discord.HTTPException):
            _log.error("a command failed: %s", type(cause).__name__, exc_info=cause)
        await whisper(interaction, _SOMETHING_WRONG)


def intents(message_content: bool) -> discord.Intents:
    """What is asked for: guilds, messages in guilds and to the bot; contents of others' messages only if configured."""
    wanted = discord.Intents.none()
    wanted.guilds = True
    wanted.guild_messages = True
    wanted.dm_messages = True
    wanted.message_content = message_content
    return wanted
