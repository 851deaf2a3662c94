"""The front-end as a process: put together here, run until a signal, its unfinished answers handed over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal

import aiohttp
import discord
import discord.gateway
import discord.http
from yarl import URL

from bots.appeals import AppealDesk
from bots.connection import client_of
from bots.conversation import Conversations
from bots.delivery.dispatch import Dispatch
from bots.delivery.ledger import Ledger
from bots.delivery.promises import Promise, Promises
from bots.delivery.surface import Surface
from bots.discord_bot import (
    account_commands,
    ask_command,
    command_sync,
    config_command,
    handles,
    knowledge_command,
    support,
    surfaces,
    verify_command,
    views,
)
from bots.discord_bot.appeals import GuildAppeals
from bots.discord_bot.attachments import Attachments
from bots.discord_bot.bot import Bot
from bots.discord_bot.commands import Commands
from bots.discord_bot.desk import Desk
from bots.discord_bot.messages import Messages
from bots.discord_bot.outbound import Outbound
from bots.discord_bot.presses import Presses
from bots.discord_bot.shows import Shows
from bots.first_contact import FirstContacts
from bots.handover.desk import Handover
from bots.handover.learning import Learning
from bots.handover.opening import LateStore
from bots.handover.relay import Relay
from bots.moderation import LateRecord, moderation_of
from bots.offers import Offers
from bots.privacy import Privacy
from bots.request_records import RequestRecords
from bots.service import ChatService
from bots.settings import DiscordSettings, Settings
from bots.tenant_config import TenantConfigs
from bots.tenant_rules import TenantRules
from bots.usage import UsageRecords
from bots.verification import Verifier
from workers.client import Client
from workers.contract import Event, ReplyTo
from workers.errors import SettingsError, WorkersError
from workers.results import EventStream

_AUTHENTICATION_FAILED = 4004
_REASONS = {
    _AUTHENTICATION_FAILED: "Discord does not accept DISCORD_TOKEN.",
    4010: "Discord does not accept the shard: check discord.shard_id and discord.shard_count.",
    4011: "The bot is in too many guilds for one process: set discord.shard_id and discord.shard_count.",
    4013: "Discord does not know an intent that this release asks for.",
}

_log = logging.getLogger("palaver.discord")


class DiscordUnavailableError(WorkersError):
    """Discord cannot be reached; trying again may help."""

    code = "discord_unavailable"
    exit_code = 69


async def serve(settings: Settings) -> None:
    """Run until SIGTERM or Ctrl-C.

    Raises:
        SettingsError: Discord accepts the token, an intent or the shard not.
        DiscordUnavailableError: Discord does not answer.
    """
    await point_at(settings.discord)
    async with client_of(settings) as client, contextlib.AsyncExitStack() as stack:
        bot = assemble(settings, client, stack)
        stack.push_async_callback(bot.close)
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(_run(bot, settings.discord), name="bot")
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, running.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def point_at(settings: DiscordSettings) -> None:
    """Have the library use the configured addresses: it reads no setting itself."""
    discord.VoiceClient.warn_nacl = discord.VoiceClient.warn_dave = False  # this bot has no voice
    base = settings.api_base_url.rstrip("/")
    gateway = settings.gateway_url
    if gateway is None and base != discord.http.Route.BASE:
        gateway = await _gateway_of(base)
    discord.http.Route.BASE = base
    if gateway is not None:
        # The class attribute: it is what a client falls back to when its session was invalidated.
        discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = URL(gateway)


async def _gateway_of(base: str) -> str:
    """The gateway that an API names."""
    try:
        async with aiohttp.ClientSession() as session, session.get(f"{base}/gateway") as response:
            return str((await response.json())["url"])
    except (aiohttp.ClientError, OSError, ValueError, KeyError) as error:
        raise DiscordUnavailableError(f"{base}/gateway does not name a gateway: {type(error).__name__}.") from None


def assemble(settings: Settings, client: Client, stack: contextlib.AsyncExitStack) -> Bot:
    """Put the front-end together.

    Args:
        settings: Everything.
        client: The queue.
        stack: Ends the deliveries when it is closed.
    """
    outbound = Outbound()

    async def set_up(bot: Bot) -> None:
        redis, front_end = client.connection, f"discord-{bot.application_id}"
        conversations, records = Conversations(redis, settings.conversation), RequestRecords(redis)
        decisions = LateRecord(settings)
        service = ChatService(client, conversations, [moderation_of(settings, decisions)])
        means = surfaces.Means(bot, outbound, views.buttons)

        def open_surface(job_id: str, reply: ReplyTo) -> Surface | None:
            del job_id
            handle = handles.read(reply)
            return surfaces.open_surface(means, handle) if handle else None

        events = EventStream(redis, front_end, secrets.token_hex(8))
        promises, ledger = Promises(redis, front_end), Ledger(redis, front_end)
        configs, store = TenantConfigs(redis), LateStore(settings)
        learning = Learning(store, client)
        handover = Handover(store, conversations, configs, client, learning, support.customer_of)

        async def ended(promise: Promise, event: Event | None) -> None:
            del promise
            if event is not None and event.answer is not None:
                await handover.answered(event)

        contacts, disclosure = FirstContacts(redis), settings.conversation.disclosure
        dispatch = Dispatch(
            service, client, records, promises, ledger, events, open_surface, ended, contacts, disclosure
        )
        rules = TenantRules(redis, configs, settings)
        attachments = Attachments(settings.discord)
        offers = Offers(redis)
        desk = Desk(front_end, client, service, dispatch, conversations, records, attachments, rules, configs, offers)
        appeal_desk = AppealDesk(decisions, handles.PLATFORM)
        appeals = GuildAppeals(bot, appeal_desk, configs)
        people = support.SupportDesk(handover, learning)
        bot.messages, bot.presses = Messages(desk, people), Presses(desk, appeals, people)
        privacy = Privacy(conversations, records, UsageRecords(redis), client, decisions, learning)
        Commands(desk, Shows(desk, means), bot.tree, privacy)
        bot.tree.add_command(config_command.group(configs, rules))
        bot.tree.add_command(ask_command.ask(desk, people))
        bot.tree.add_command(knowledge_command.group(attachments))
        bot.tree.add_command(knowledge_command.menu())
        bot.tree.add_command(account_commands.usage(client, rules))
        bot.tree.add_command(account_commands.privacy(privacy))
        bot.tree.add_command(appeals.commands())
        for command in verify_command.commands(Verifier(settings), attachments):
            bot.tree.add_command(command)
        await command_sync.sync(bot.tree, redis, bot.application_id or 0)
        deliveries = asyncio.create_task(dispatch.run(), name="deliveries")
        stack.push_async_callback(dispatch.close)
        stack.callback(deliveries.cancel)
        relay = Relay(handles.PLATFORM, store, support.DiscordSupport(bot))
        stack.callback(asyncio.create_task(relay.run(), name="hand-overs").cancel)
        outcomes = asyncio.create_task(appeal_desk.watch(appeals.tell), name="outcomes of appeals")
        stack.callback(outcomes.cancel)

    return Bot(settings.discord, outbound.trace(), set_up)


async def _run(bot: Bot, settings: DiscordSettings) -> None:
    if settings.token is None:
        raise SettingsError("DISCORD_TOKEN is not set. docs/discord.md shows how to get one.")
    try:
        await bot.start(settings.token.get_secret_value())
    except discord.LoginFailure:
        raise SettingsError(_REASONS[_AUTHENTICATION_FAILED]) from None
    except discord.PrivilegedIntentsRequired:
        raise SettingsError(
            "Discord does not allow the Message Content intent. Switch it on in the developer portal, "
            "or set discord.message_content to false."
        ) from None
    except discord.ConnectionClosed as error:
        if error.code in _REASONS:
            raise SettingsError(_REASONS[error.code]) from None
        raise DiscordUnavailableError(f"Discord has closed the connection with code {error.code}.") from None
    except (discord.GatewayNotFound, discord.HTTPException, aiohttp.ClientError, OSError) as error:
        raise DiscordUnavailableError(f"Discord cannot be reached: {type(error).__name__}.") from None
