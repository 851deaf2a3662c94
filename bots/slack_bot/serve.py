"""The front-end as a process: put together here, run until a signal, its unfinished answers handed over."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass

from slack_bolt.async_app import AsyncApp

from bots import up_wants
from bots.appeals import AppealDesk
from bots.connection import client_of
from bots.conversation import Conversations
from bots.delivery.dispatch import Dispatch, end_tasks
from bots.delivery.ledger import Ledger
from bots.delivery.promises import Promise, Promises
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
from bots.settings import Settings
from bots.slack_bot import app as bolt
from bots.slack_bot import socket_mode
from bots.slack_bot.account import Account
from bots.slack_bot.chat import Chat
from bots.slack_bot.claims import Claims
from bots.slack_bot.commands import Commands
from bots.slack_bot.files import Files
from bots.slack_bot.home import Home
from bots.slack_bot.http_mode import HttpMode
from bots.slack_bot.imagine import Imagine
from bots.slack_bot.intake import Intake
from bots.slack_bot.interactions import Interactions
from bots.slack_bot.knowledge import KnowledgeAdmin
from bots.slack_bot.members import Members
from bots.slack_bot.origin import Origin
from bots.slack_bot.outbound import Outbounds
from bots.slack_bot.private_surfaces import ResponseUrls
from bots.slack_bot.remedies import Remedies
from bots.slack_bot.support import SlackSupport, SupportDesk, customer_of
from bots.slack_bot.surfaces import Surfaces
from bots.slack_bot.target import FRONT_END
from bots.slack_bot.verification import Verification
from bots.slack_bot.whisper import Whisper
from bots.slack_bot.workspaces import Workspaces
from bots.tenant_config import TenantConfigs
from bots.tenant_rules import TenantRules
from bots.usage import UsageRecords
from bots.verification import Verifier
from workers.contract import Event
from workers.results import EventStream

_log = logging.getLogger("palaver.slack")


async def serve(settings: Settings, http: bool) -> None:
    """Run until SIGTERM or Ctrl-C.

    Args:
        settings: Everything.
        http: Whether to listen for requests instead of opening a socket.

    Raises:
        SettingsError: A token is not accepted.
        PlatformUnavailableError: The platform does not answer.
    """
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Workspaces(settings.slack) as workspaces:
        await workspaces.connect()
        if not http:
            await socket_mode.check_app_token(workspaces, settings.slack)
        async with _parts(settings, workspaces) as parts:
            app = bolt.build(workspaces, parts.listeners, settings.slack.secret)
            async with _listening(app, settings) if http else _socket(app, settings):
                await _until(stopped, parts.dispatch)
            await parts.intake.close()


@contextlib.asynccontextmanager
async def _socket(app: AsyncApp, settings: Settings) -> AsyncIterator[None]:
    handler = socket_mode.handler(app, settings.slack)
    await handler.connect_async()  # type: ignore[no-untyped-call]  # the library's is untyped
    _log.info("connected by Socket Mode")
    try:
        yield
    finally:
        await handler.close_async()  # type: ignore[no-untyped-call]  # as above


@contextlib.asynccontextmanager
async def _listening(app: AsyncApp, settings: Settings) -> AsyncIterator[None]:
    async with HttpMode(app, settings.slack) as server:
        _log.info("listening at %s", server.address)
        yield


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a running front-end consists of."""

    listeners: bolt.Listeners
    dispatch: Dispatch
    intake: Intake


@contextlib.asynccontextmanager
async def _parts(settings: Settings, workspaces: Workspaces) -> AsyncIterator[_Parts]:
    async with client_of(settings) as client:
        connection = client.connection
        conversations = Conversations(connection, settings.conversation)
        decisions = LateRecord(settings)
        service = ChatService(client, conversations, [moderation_of(settings, decisions)])
        records = RequestRecords(connection)
        claims = Claims(connection, settings.conversation.retention_s)
        origin, outbounds = Origin(settings.slack.api_base_url), Outbounds()
        urls = ResponseUrls(workspaces.session, origin)
        usage, configs = UsageRecords(connection), TenantConfigs(connection)
        surfaces = Surfaces(workspaces, settings.slack, outbounds, claims, origin, urls, usage)
        store = LateStore(settings)
        learning = Learning(store, client)
        handover = Handover(store, conversations, configs, client, learning, customer_of)

        async def ended(promise: Promise, event: Event | None) -> None:
            await surfaces.ended(promise, event)
            if event is not None and event.answer is not None:
                await handover.answered(event)

        dispatch = Dispatch(
            service,
            client,
            records,
            Promises(connection, FRONT_END, settings.slack.lease_s),
            Ledger(connection, FRONT_END),
            EventStream(connection, FRONT_END, secrets.token_hex(8)),
            surfaces.open,
            ended,
            FirstContacts(connection),
            settings.conversation.disclosure,
        )
        rules = TenantRules(connection, configs, settings)
        whisper, members = Whisper(urls), Members()
        desk = AppealDesk(decisions, FRONT_END)
        remedies = Remedies(workspaces, Offers(connection), desk, configs, members, whisper)
        intake = Intake(dispatch, rules, remedies)
        files = Files(workspaces.session, origin, settings.slack.max_file_bytes, settings.slack.max_picture_bytes)
        privacy = Privacy(conversations, records, usage, client, decisions, learning)
        account = Account(usage, records, conversations, privacy)
        home = Home(outbounds, account, configs, rules, members)
        people = SupportDesk(handover, learning, members)
        chat = Chat(intake, conversations, claims, files, whisper, people)
        imagine = Imagine(intake, client, records, members, files)
        verification, knowledge = Verification(Verifier(settings), files), KnowledgeAdmin(members, files)
        retention_s = settings.conversation.retention_s
        commands = Commands(
            intake, chat, imagine, account, whisper, remedies, verification, retention_s,
            lambda: up_wants.has_knowledge(settings), knowledge,
        )  # fmt: skip
        interactions = Interactions(
            intake,
            service,
            conversations,
            imagine,
            account,
            home,
            members,
            whisper,
            remedies,
            verification,
            people,
            knowledge,
        )
        listeners = bolt.Listeners(workspaces, intake, chat, commands, interactions, home)
        relay = Relay(FRONT_END, store, SlackSupport(workspaces))
        beside = [
            asyncio.create_task(desk.watch(remedies.tell), name="outcomes of appeals"),
            asyncio.create_task(relay.run(), name="hand-overs"),
        ]
        try:
            yield _Parts(listeners, dispatch, intake)
        finally:
            for task in beside:
                task.cancel()


async def _until(stopped: asyncio.Event, dispatch: Dispatch) -> None:
    """Deliver until told to stop, then let other processes go on."""
    running = asyncio.create_task(dispatch.run(), name="deliveries")
    waiting = asyncio.create_task(stopped.wait(), name="signal")
    try:
        await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
    finally:
        await end_tasks([running, waiting])
        await dispatch.close()
