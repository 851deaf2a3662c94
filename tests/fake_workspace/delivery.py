"""How events, commands and interactions reach the app: Socket Mode or signed HTTP, with deadlines and retries."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import secrets
import time
import urllib.parse
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web

from tests.fake_workspace.workspace import APP_ID, SIGNING_SECRET, Ack, Workspace


class Socket:
    """The websocket side of Socket Mode: up to ten connections, envelopes answered by id.

    Args:
        workspace: The state.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._waiting: dict[str, asyncio.Future[Any]] = {}
        self.connections: list[web.WebSocketResponse] = []
        self.opened = 0
        self.closed_by_app = 0
        self._next = 0

    async def handle(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse(autoping=True)
        await socket.prepare(request)
        if len(self.connections) >= 10:
            await socket.close()
            return socket
        self.connections.append(socket)
        self.opened += 1
        hello = {"type": "hello", "num_connections": len(self.connections), "connection_info": {"app_id": APP_ID},
                 "debug_info": {"host": "fake", "approximate_connection_time": 18060}}  # fmt: skip
        await socket.send_str(json.dumps(hello))
        try:
            async for message in socket:
                if message.type == WSMsgType.TEXT:
                    self._take(json.loads(message.data))
        finally:
            if socket in self.connections:
                self.connections.remove(socket)
                self.closed_by_app += 1
        return socket

    def _take(self, reply: dict[str, Any]) -> None:
        if self._workspace.faults.drop_acks > 0:
            self._workspace.faults.drop_acks -= 1
            return
        waiting = self._waiting.pop(reply.get("envelope_id", ""), None)
        if waiting and not waiting.done():
            waiting.set_result(reply.get("payload"))

    async def send(self, envelope: dict[str, Any], deadline_s: float) -> tuple[int, Any]:
        """Send an envelope over one of the connections; returns (200, what came back), or (0, None) at the deadline."""
        begun_s = time.monotonic()
        waiting: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[envelope["envelope_id"]] = waiting
        while not self.connections:
            if time.monotonic() - begun_s > deadline_s:
                return 0, None
            await asyncio.sleep(0.02)
        self._next += 1
        connection = self.connections[self._next % len(self.connections)]
        try:
            await connection.send_str(json.dumps(envelope))
            return 200, await asyncio.wait_for(waiting, max(0.0, deadline_s - (time.monotonic() - begun_s)))
        except (TimeoutError, ConnectionError):
            return 0, None

    async def ask_to_refresh(self) -> None:
        """Tell every connection that it will be closed; a new one must be there before."""
        for socket in list(self.connections):
            await socket.send_str(json.dumps({"type": "disconnect", "reason": "refresh_requested", "debug_info": {}}))

    async def drop(self) -> None:
        """Cut every connection without a word."""
        for socket in list(self.connections):
            self.connections.remove(socket)
            if socket._req is not None and socket._req.transport is not None:
                socket._req.transport.abort()

    async def close(self) -> None:
        for socket in list(self.connections):
            await socket.close()


class Delivery:
    """Sends one thing to the app and notes how it was answered.

    Args:
        workspace: The state.
        socket: Where it goes in Socket Mode.
    """

    def __init__(self, workspace: Workspace, socket: Socket) -> None:
        self._workspace = workspace
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self.request_url: str | None = None  # HTTP mode when set

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    async def event(self, payload: dict[str, Any], retry: bool = True) -> Ack:
        """Deliver an ``event_callback``, again when it is not acknowledged; returns the last answer."""
        name = payload["event"]["type"]
        ack = await self._send("events_api", name, payload, 0, "")
        for number, delay_s in enumerate(self._workspace.rules.retry_delays_s if retry else (), 1):
            if ack.ok:
                break
            await asyncio.sleep(delay_s)
            ack = await self._send("events_api", name, payload, number, "http_timeout")
        return ack

    async def command(self, payload: dict[str, Any]) -> Ack:
        """Deliver a slash command, once."""
        return await self._send("slash_commands", payload["command"], payload, 0, "")

    async def interaction(self, payload: dict[str, Any]) -> Ack:
        """Deliver an interaction, once."""
        return await self._send("interactive", payload["type"], payload, 0, "")

    async def _send(self, kind: str, name: str, payload: dict[str, Any], attempt: int, reason: str) -> Ack:
        begun_s = time.monotonic()
        deadline_s = self._workspace.rules.ack_deadline_s
        if self.request_url:
            status, reply = await self._post(kind, payload, attempt, reason, deadline_s)
        else:
            envelope = {"type": kind, "envelope_id": secrets.token_hex(8), "payload": payload,
                        "accepts_response_payload": kind != "events_api"}  # fmt: skip
            if kind == "events_api":
                envelope |= {"retry_attempt": attempt, "retry_reason": reason and "timeout"}
            status, reply = await self._socket.send(envelope, deadline_s)
        ack = Ack(kind, name, time.monotonic() - begun_s, status, reply)
        self._workspace.acks.append(ack)
        return ack

    async def _post(
        self, kind: str, payload: dict[str, Any], attempt: int, reason: str, deadline_s: float
    ) -> tuple[int, Any]:
        if kind == "events_api":
            body, content_type = json.dumps(payload), "application/json"
        elif kind == "slash_commands":
            body, content_type = urllib.parse.urlencode(payload), "application/x-www-form-urlencoded"
        else:
            body = urllib.parse.urlencode({"payload": json.dumps(payload)})
            content_type = "application/x-www-form-urlencoded"
        headers = {"Content-Type": content_type, **signed(body)}
        if attempt:
            headers |= {"X-Slack-Retry-Num": str(attempt), "X-Slack-Retry-Reason": reason}
        return await self.post_raw(body, headers, deadline_s)

    async def post_raw(self, body: str, headers: dict[str, str], deadline_s: float = 3.0) -> tuple[int, Any]:
        """Post these bytes with these headers, whoever may have written them."""
        assert self.request_url
        self._session = self._session or aiohttp.ClientSession()
        timeout = aiohttp.ClientTimeout(total=deadline_s)
        try:
            async with self._session.post(self.request_url, data=body, headers=headers, timeout=timeout) as response:
                text = await response.text()
        except (TimeoutError, aiohttp.ClientError):
            return 0, None
        if self._workspace.faults.drop_acks > 0 and response.status == 200:
            self._workspace.faults.drop_acks -= 1
            return 0, None
        try:
            return response.status, json.loads(text) if text else None
        except ValueError:
            return response.status, text


def signed(body: str, secret: str = SIGNING_SECRET, at_s: float | None = None) -> dict[str, str]:
    """The headers with which the platform proves that a request is its own."""
    timestamp = str(int(at_s or time.time()))
    digest = hmac.new(secret.encode(), f"v0:{timestamp}:{body}".encode(), hashlib.sha256).hexdigest()
    return {"X-Slack-Request-Timestamp": timestamp, "X-Slack-Signature": f"v0={digest}"}
