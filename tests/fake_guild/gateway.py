"""The gateway: sessions that identify, resume, are told to reconnect, dropped, or refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
from dataclasses import dataclass, field
from typing import Any

from aiohttp import WSMsgType, web

from tests.fake_guild.rules import Rules
from tests.fake_guild.world import APPLICATION, GUILD, TOKEN, World

MESSAGE_CONTENT = 1 << 15


@dataclass(eq=False)
class Session:
    """One client's session; its events are kept so that it can be resumed."""

    id: str
    intents: int
    shard: tuple[int, int] = (0, 1)
    sequence: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    socket: web.WebSocketResponse | None = None

    def has(self, guild: int | None) -> bool:
        """Whether a guild, or direct messages, are this shard's."""
        shard, count = self.shard
        return ((guild or 0) >> 22) % count == shard


class Gateway:
    """All connections.

    Attributes:
        sessions: By id.
        identified: How many times a client has identified.
        resumed: How many times one has resumed.
    """

    def __init__(self, world: World, rules: Rules, url: str) -> None:
        self._world = world
        self._rules = rules
        self.url = url
        self.sessions: dict[str, Session] = {}
        self.identified = 0
        self.resumed = 0
        self.heartbeats = 0

    async def handle(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await _send(socket, {"op": 10, "d": {"heartbeat_interval": int(self._rules.heartbeat_s * 1000)}})
        session: Session | None = None
        async for raw in socket:
            if raw.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
                break
            frame = json.loads(raw.data)
            if frame["op"] == 1:
                self.heartbeats += 1
                if not self._rules.mute:
                    await _send(socket, {"op": 11, "d": None})
            elif frame["op"] == 2:
                session = await self._identify(socket, frame["d"])
            elif frame["op"] == 6:
                session = await self._resume(socket, frame["d"])
        if session is not None and session.socket is socket:
            session.socket = None
        return socket

    @property
    def connected(self) -> list[Session]:
        return [session for session in self.sessions.values() if session.socket is not None]

    async def dispatch(self, name: str, data: dict[str, Any], guild: int | None = GUILD) -> None:
        """Send an event to whoever has that guild; those who are away get it when they resume."""
        for session in list(self.sessions.values()):
            if session.has(guild):
                await self._event(session, name, data)

    async def op(self, number: int, data: Any = None) -> None:
        """Send an operation such as RECONNECT (7) or INVALID_SESSION (9) to all."""
        for session in self.connected:
            if number == 9:
                self.sessions.pop(session.id, None)
            if session.socket is not None:
                await _send(session.socket, {"op": number, "d": data})

    async def drop(self) -> None:
        """Cut every connection without a word."""
        for session in self.connected:
            socket, session.socket = session.socket, None
            if socket is not None and socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    async def _identify(self, socket: web.WebSocketResponse, data: dict[str, Any]) -> Session | None:
        if data["token"] != TOKEN:
            await socket.close(code=4004, message=b"Authentication failed.")
            return None
        if data["intents"] & MESSAGE_CONTENT and not self._rules.message_content:
            await socket.close(code=4014, message=b"Disallowed intent(s).")
            return None
        self.identified += 1
        session = Session(secrets.token_hex(8), data["intents"], tuple(data.get("shard") or (0, 1)), socket=socket)
        # One application has one live session a shard here; older ones of killed processes are forgotten.
        for old in [each for each in self.sessions.values() if each.socket is None]:
            self.sessions.pop(old.id)
        self.sessions[session.id] = session
        ready = {
            "v": 10, "user": self._world.user(APPLICATION) | {"flags": 0, "verified": True, "mfa_enabled": False},
            "guilds": [{"id": str(GUILD), "unavailable": True}] if session.has(GUILD) else [], "session_id": session.id,
            "resume_gateway_url": self.url, "application": {"id": str(APPLICATION), "flags": 0},
            "shard": list(session.shard),
        }  # fmt: skip
        await self._event(session, "READY", ready)
        if session.has(GUILD):
            await self._event(session, "GUILD_CREATE", self._world.guild())
        return session

    async def _resume(self, socket: web.WebSocketResponse, data: dict[str, Any]) -> Session | None:
        session = self.sessions.get(data["session_id"])
        if session is None or data["token"] != TOKEN:
            await _send(socket, {"op": 9, "d": False})
            return None
        self.resumed += 1
        session.socket = socket
        for event in session.events:
            if event["s"] > data["seq"]:
                await _send(socket, event)
        await self._event(session, "RESUMED", {})
        return session

    async def _event(self, session: Session, name: str, data: dict[str, Any]) -> None:
        session.sequence += 1
        event = {"op": 0, "t": name, "s": session.sequence, "d": data}
        session.events.append(event)
        if session.socket is not None:
            await _send(session.socket, event)

    async def repeat_last(self, name: str) -> None:
        """Send the latest event of a name again under a new number, as happens around resumes."""
        for session in self.connected:
            found = [event for event in session.events if event["t"] == name]
            await self._event(session, name, found[-1]["d"])


async def _send(socket: web.WebSocketResponse, frame: dict[str, Any]) -> None:
    with contextlib.suppress(ConnectionError, RuntimeError, asyncio.CancelledError):
        await socket.send_str(json.dumps(frame))
