"""The state of the platform: teams, people, channels, messages, files, views, and what happened."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from tests.fake_workspace.content import Message, new_ts, pinged
from tests.fake_workspace.rules import Faults, Rules, Tiers

APP_ID = "A0FAKE"
APP_TOKEN = "xapp-1-A0FAKE-secret"
SIGNING_SECRET = "8f742231b10e8888abcd99yyyzzz85a5"


@dataclass(frozen=True, slots=True)
class Team:
    """A workspace in which the app is installed."""

    id: str
    bot_token: str
    bot_user: str
    bot_id: str
    enterprise: str | None = None
    org_install: bool = False


@dataclass(slots=True)
class Channel:
    """A channel, group or direct message."""

    id: str
    team: str
    kind: str = "channel"
    members: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class Ack:
    """How an envelope or a request was answered.

    Attributes:
        kind: ``events_api``, ``slash_commands`` or ``interactive``.
        name: Event type, command or interaction type.
        latency_s: Time to the answer; the deadline if there was none.
        status: HTTP status, or 200 for an envelope that was answered; 0 if it was not.
        payload: What came with it.
    """

    kind: str
    name: str
    latency_s: float
    status: int
    payload: Any = None

    @property
    def ok(self) -> bool:
        return self.status == 200


@dataclass(frozen=True, slots=True)
class Call:
    """One call of the Web API."""

    method: str
    args: dict[str, Any]
    token: str
    answer: str
    at_s: float


@dataclass(slots=True)
class Trigger:
    """A trigger_id: good for one view within its life."""

    id: str
    user: str
    made_s: float
    used: bool = False


@dataclass(slots=True)
class ResponseUrl:
    """A response_url and how often it was used."""

    id: str
    channel: str
    user: str
    made_s: float
    message_ts: str | None = None
    uses: list[dict[str, Any]] = field(default_factory=list)
    refused: int = 0


@dataclass(slots=True)
class Upload:
    """A file on its way or there."""

    id: str
    name: str
    length: int
    alt_txt: str
    data: bytes | None = None
    done: bool = False


class Workspace:
    """Everything the platform knows."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.faults = Faults()
        self.tiers = Tiers(rules)
        self.teams: dict[str, Team] = {}
        self.channels: dict[str, Channel] = {}
        self.messages: list[Message] = []
        self.views: dict[str, dict[str, Any]] = {}
        self.homes: dict[str, dict[str, Any]] = {}
        self.admins: set[str] = set()
        self.bots: set[str] = set()
        self.triggers: dict[str, Trigger] = {}
        self.response_urls: dict[str, ResponseUrl] = {}
        self.uploads: dict[str, Upload] = {}
        self.sessions: dict[tuple[str, str], dict[str, Any]] = {}
        self.prompts: dict[str, list[dict[str, str]]] = {}
        self.acks: list[Ack] = []
        self.calls: list[Call] = []
        self.pings: list[tuple[str, str]] = []
        self.tokens_elsewhere: list[str] = []
        self._counter = [0]
        self.add_team("T1")

    def add_team(self, team: str, enterprise: str | None = None, org_install: bool = False) -> Team:
        # One installation in a whole organization has one token and one bot.
        number = enterprise if org_install and enterprise else team[1:]
        added = Team(team, f"xoxb-{number}-secret", f"UBOT{number}", f"B{number}", enterprise, org_install)
        self.teams[team] = added
        return added

    def team_of_token(self, token: str) -> Team | None:
        return next((team for team in self.teams.values() if team.bot_token == token), None)

    def channel(self, channel: str, team: str = "T1") -> Channel:
        if channel not in self.channels:
            kind = {"D": "im", "G": "group"}.get(channel[0], "channel")
            self.channels[channel] = Channel(channel, team, kind)
        return self.channels[channel]

    def ts(self) -> str:
        return new_ts(self._counter)

    def find(self, channel: str, ts: str) -> Message | None:
        return next((each for each in self.messages if (each.channel, each.ts) == (channel, ts)), None)

    def add(self, message: Message, args: dict[str, Any] | None = None) -> Message:
        message.record()
        self.messages.append(message)
        self.note_pings(message, args or {})
        return message

    def note_pings(self, message: Message, args: dict[str, Any]) -> None:
        if message.bot_id:
            self.pings += [(message.channel, who) for who in pinged(message.text, message.blocks, args)]

    def new_trigger(self, user: str) -> Trigger:
        trigger = Trigger(f"{secrets.token_hex(6)}.trigger", user, time.monotonic())
        self.triggers[trigger.id] = trigger
        return trigger

    def new_response_url(self, channel: str, user: str, message_ts: str | None = None) -> ResponseUrl:
        made = ResponseUrl(secrets.token_hex(8), channel, user, time.monotonic(), message_ts)
        self.response_urls[made.id] = made
        return made

    def streams_tick(self) -> None:
        """Streams that have lived too long are dead from now on."""
        for message in self.messages:
            if message.streaming and time.monotonic() - message.stream_began_s > self.rules.stream_life_s:
                message.streaming, message.stream_died = False, True

    # What tests ask

    def thread(self, channel: str, thread_ts: str | None) -> list[Message]:
        """What the app has posted there and what still stands, oldest first."""
        return [
            each
            for each in self.messages
            if each.bot_id
            and each.channel == channel
            and each.thread_ts == thread_ts
            and not each.deleted
            and not each.ephemeral_for
            and each.user not in self.bots
        ]

    def whispers(self, user: str) -> list[Message]:
        """Ephemeral messages to somebody."""
        return [each for each in self.messages if each.ephemeral_for == user and not each.deleted]

    def called(self, method: str, answer: str | None = None) -> list[Call]:
        return [call for call in self.calls if call.method == method and answer in (None, call.answer)]

    def acked(self, kind: str | None = None) -> list[Ack]:
        return [ack for ack in self.acks if kind in (None, ack.kind)]
