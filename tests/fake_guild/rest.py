"""The REST API, as far as a bot of this kind uses it; what the real one refuses, this one refuses."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.fake_guild.gateway import Gateway
from tests.fake_guild.rules import RateLimits, Rules
from tests.fake_guild.world import (
    APPLICATION,
    EPHEMERAL,
    LOADING,
    TOKEN,
    Channel,
    Interaction,
    Message,
    RejectedError,
    World,
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_NONCE_S = 300.0


class Rest:
    """The handlers.

    Attributes:
        requests: Method and path of each request, in order.
    """

    def __init__(self, world: World, rules: Rules, limits: RateLimits, gateway: Gateway, cdn_url: str) -> None:
        self._world = world
        self._rules = rules
        self._limits = limits
        self._gateway = gateway
        self._cdn_url = cdn_url
        self.requests: list[tuple[str, str]] = []

    def routes(self) -> list[web.RouteDef]:
        channel, webhook = "/api/v10/channels/{channel}", "/api/v10/webhooks/{application}/{token}"
        table: list[tuple[str, str, Handler]] = [
            ("GET", "/api/v10/users/@me", self._me),
            ("GET", "/api/v10/oauth2/applications/@me", self._application),
            ("GET", "/api/v10/gateway", self._gateway_url),
            ("GET", "/api/v10/users/{user}", self._user),
            ("POST", "/api/v10/users/@me/channels", self._open_dm),
            ("PUT", "/api/v10/applications/{application}/commands", self._put_commands),
            ("POST", "/api/v10/interactions/{id}/{token}/callback", self._callback),
            ("POST", channel + "/messages", self._post_message),
            ("GET", channel + "/messages", self._history),
            ("PATCH", channel + "/messages/{message}", self._edit_message),
            ("DELETE", channel + "/messages/{message}", self._delete_message),
            ("POST", channel + "/messages/{message}/threads", self._open_thread),
            ("POST", channel + "/typing", self._type),
            ("POST", webhook, self._follow_up),
            ("PATCH", webhook + "/messages/{message}", self._edit_response),
            ("DELETE", webhook + "/messages/{message}", self._delete_response),
        ]
        made = [web.route(method, path, self._guarded(handler)) for method, path, handler in table]
        return [*made, web.get("/cdn/{name:.+}", self._file)]

    def _guarded(self, handler: Handler) -> Handler:
        """Latency, faults, limits and rights come before every handler."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            self.requests.append((request.method, request.path))
            if self._rules.latency_s:
                await asyncio.sleep(self._rules.latency_s)
            limited = "/messages" in request.path or "/webhooks/" in request.path
            headers: dict[str, str] = {}
            if limited:
                allowed, headers = self._limits.take(_bucket(request))
                if not allowed:
                    wait_s = float(headers["X-RateLimit-Reset-After"])
                    body = {"message": "You are being rate limited.", "retry_after": wait_s, "global": False}
                    return _json(body, status=429, headers=headers | {"Retry-After": f"{wait_s:.3f}"})
            if limited and self._rules.faults:
                return _json({"message": "storm"}, status=self._rules.faults.pop(0), headers=headers)
            try:
                _check_token(request)
                response = await handler(request)
            except RejectedError as no:
                return _json({"code": no.code, "message": no.message}, status=no.status, headers=headers)
            response.headers.update(headers)
            return response

        return guarded

    # Who and where

    async def _me(self, request: web.Request) -> web.Response:
        return _json(self._world.user(APPLICATION) | {"flags": 0, "verified": True, "mfa_enabled": False})

    async def _application(self, request: web.Request) -> web.Response:
        owner = self._world.user(next(iter(self._world.users)))
        return _json(
            {
                "id": str(APPLICATION), "name": "palaver", "icon": None, "description": "", "bot_public": True,
                "bot_require_code_grant": False, "owner": owner, "verify_key": "", "team": None, "flags": 0,
            }
        )  # fmt: skip

    async def _gateway_url(self, request: web.Request) -> web.Response:
        return _json({"url": self._gateway.url})

    async def _user(self, request: web.Request) -> web.Response:
        return _json(self._world.user(int(request.match_info["user"])))

    async def _open_dm(self, request: web.Request) -> web.Response:
        recipient = int((await request.json())["recipient_id"])
        return _json(self._world.channel(self.direct(recipient).id))

    def direct(self, user: int) -> Channel:
        """The direct messages with somebody."""
        for channel in self._world.channels.values():
            if channel.recipient == user:
                return channel
        made = Channel(self._world.snowflake(), None, type=1, recipient=user)
        self._world.channels[made.id] = made
        return made

    async def _put_commands(self, request: web.Request) -> web.Response:
        self._world.commands = await request.json()
        self._world.command_syncs += 1
        own = {"application_id": str(APPLICATION), "version": "1", "description": ""}
        return _json([{"id": str(self._world.snowflake())} | own | each for each in self._world.commands])

    async def _file(self, request: web.Request) -> web.Response:
        data = self._world.files.get(request.match_info["name"])
        return web.Response(status=404) if data is None else web.Response(body=data)

    # Messages of the bot

    async def _post_message(self, request: web.Request) -> web.Response:
        channel = self._world.channel_of(int(request.match_info["channel"]), write=True)
        payload, files = await self._payload(request)
        self._world.check(payload, len(files))
        nonce = payload.get("nonce")
        if payload.get("enforce_nonce") and nonce:
            for known in self._world.messages.values():
                if known.nonce == nonce and time.monotonic() - known.created_s < _NONCE_S:
                    return _json(self._world.message(known))
        message = Message(self._world.snowflake(), channel.id, APPLICATION, nonce=nonce)
        reference = payload.get("message_reference")
        if reference and not channel.readable:
            raise RejectedError(403, 160002, "You cannot reply without permission to read message history")
        if reference and int(reference["message_id"]) in self._world.messages:
            message.reference = int(reference["message_id"])
        await self._store(message, payload, files)
        return _json(self._world.message(message))

    async def _edit_message(self, request: web.Request) -> web.Response:
        channel = self._world.channel_of(int(request.match_info["channel"]), write=True)
        message = self._world.message_of(channel.id, int(request.match_info["message"]))
        payload, files = await self._payload(request)
        self._world.check(payload, len(files), message)
        await self._store(message, payload, files)
        return _json(self._world.message(message))

    async def _delete_message(self, request: web.Request) -> web.Response:
        channel = self._world.channel_of(int(request.match_info["channel"]))
        message = self._world.message_of(channel.id, int(request.match_info["message"]))
        del self._world.messages[message.id]
        return web.Response(status=204)

    async def _history(self, request: web.Request) -> web.Response:
        channel = self._world.channel_of(int(request.match_info["channel"]))
        own = [each for each in self._world.messages.values() if each.channel == channel.id and not each.visible_to]
        latest = sorted(own, key=lambda each: -each.id)[: int(request.query.get("limit", 50))]
        return _json([self._world.message(each) for each in latest])

    async def _open_thread(self, request: web.Request) -> web.Response:
        parent = self._world.channel_of(int(request.match_info["channel"]), write=True)
        thread = Channel(int(request.match_info["message"]), parent.guild, 11, parent.id, owner=APPLICATION)
        self._world.channels[thread.id] = thread
        await self._gateway.dispatch("THREAD_CREATE", self._world.channel(thread.id))
        return _json(self._world.channel(thread.id))

    async def _type(self, request: web.Request) -> web.Response:
        self._world.typed.append(self._world.channel_of(int(request.match_info["channel"]), write=True).id)
        return web.Response(status=204)

    async def _payload(self, request: web.Request) -> tuple[dict[str, Any], list[tuple[str, bytes]]]:
        if not request.content_type.startswith("multipart/"):
            return await request.json(), []
        payload: dict[str, Any] = {}
        files: list[tuple[str, bytes]] = []
        async for part in await request.multipart():
            if part.name == "payload_json":  # type: ignore[union-attr]
                payload = json.loads(await part.text())  # type: ignore[union-attr]
            else:
                files.append((part.filename or "", bytes(await part.read())))  # type: ignore[union-attr]
        if sum(len(data) for _, data in files) > self._rules.max_file_bytes:
            raise RejectedError(413, 40005, "Request entity too large")
        return payload, files

    async def _store(self, message: Message, payload: dict[str, Any], files: list[tuple[str, bytes]]) -> None:
        if payload.get("content") is not None:
            message.content = payload["content"]
            message.history.append(message.content)
        if "components" in payload:
            message.components = payload["components"] or []
        if "attachments" in payload or files:
            described = {int(each["id"]): each for each in payload.get("attachments") or [] if "filename" in each}
            message.attachments, message.files = [], []
            for index, (name, data) in enumerate(files):
                about = described.get(index, {})
                url = f"{self._cdn_url}/attachments/{message.channel}/{message.id}/{name}"
                message.attachments.append(
                    {
                        "id": str(self._world.snowflake()), "filename": name, "size": len(data), "url": url,
                        "proxy_url": url, "description": about.get("description"),
                    }
                )  # fmt: skip
                message.files.append(data)
        message.flags = (message.flags & ~LOADING) | (payload.get("flags") or 0)
        self._world.messages[message.id] = message
        self._world.note_pings(message, payload.get("allowed_mentions"))

    # Interactions

    async def _callback(self, request: web.Request) -> web.Response:
        interaction = self._world.interactions.get(request.match_info["token"])
        now_s = time.monotonic()
        if interaction is None or now_s - interaction.created_s > self._rules.ack_deadline_s:
            raise RejectedError(404, 10062, "Unknown interaction")
        if interaction.acknowledged_s is not None:
            raise RejectedError(400, 40060, "Interaction has already been acknowledged.")
        payload, files = await self._payload(request)
        data = payload.get("data") or {}
        kind = payload["type"]
        if kind in (4, 7):
            self._world.check(data, len(files))
        interaction.acknowledged_s, interaction.kind = now_s, kind
        if kind in (4, 5):
            message = Message(self._world.snowflake(), interaction.channel, APPLICATION, interaction=interaction.id)
            message.flags = (data.get("flags") or 0) & EPHEMERAL
            message.visible_to = interaction.user if message.flags & EPHEMERAL else None
            await self._store(message, data, files)
            if kind == 5:
                message.flags |= LOADING
            interaction.message = message.id
        elif kind in (6, 7):
            interaction.message = interaction.source
        elif kind == 8:
            interaction.choices = data["choices"]
        elif kind == 9:
            interaction.modal = data
        about = {"id": str(interaction.id), "type": 2, "response_message_id": str(interaction.message or 0)}
        body: dict[str, Any] = {"interaction": about, "resource": {"type": kind}}
        if interaction.message in self._world.messages:
            body["resource"]["message"] = self._world.message(self._world.messages[interaction.message])
        return _json(body)

    def _alive(self, request: web.Request) -> Interaction:
        interaction = self._world.interactions.get(request.match_info["token"])
        if interaction is None or interaction.acknowledged_s is None:
            raise RejectedError(404, 10015, "Unknown Webhook")
        if time.monotonic() - interaction.created_s > self._rules.token_life_s:
            raise RejectedError(401, 50027, "Invalid Webhook Token")
        return interaction

    def _response(self, request: web.Request) -> Message:
        interaction = self._alive(request)
        wanted = request.match_info["message"]
        message_id = interaction.message if wanted == "@original" else int(wanted)
        message = self._world.messages.get(message_id or 0)
        if message is None or message.id not in (interaction.message, *interaction.follow_ups):
            raise RejectedError(404, 10008, "Unknown Message")
        return message

    async def _follow_up(self, request: web.Request) -> web.Response:
        interaction = self._alive(request)
        payload, files = await self._payload(request)
        self._world.check(payload, len(files))
        first = self._world.messages.get(interaction.message or 0)
        if first is not None and first.loading:  # the first one after a defer edits the deferred message
            await self._store(first, payload | {"flags": first.flags & EPHEMERAL}, files)
            return _json(self._world.message(first))
        if not self._world.installed and len(interaction.follow_ups) >= 5:
            raise RejectedError(400, 40094, "Follow-up messages are limited")
        message = Message(self._world.snowflake(), interaction.channel, APPLICATION, interaction=interaction.id)
        message.visible_to = interaction.user if (payload.get("flags") or 0) & EPHEMERAL else None
        await self._store(message, payload, files)
        interaction.follow_ups.append(message.id)
        return _json(self._world.message(message))

    async def _edit_response(self, request: web.Request) -> web.Response:
        message = self._response(request)
        payload, files = await self._payload(request)
        self._world.check(payload, len(files), message)
        await self._store(message, payload, files)
        return _json(self._world.message(message))

    async def _delete_response(self, request: web.Request) -> web.Response:
        del self._world.messages[self._response(request).id]
        return web.Response(status=204)


def _check_token(request: web.Request) -> None:
    public = "token" in request.match_info or request.path.endswith("/gateway")
    if not public and request.headers.get("Authorization") != f"Bot {TOKEN}":
        raise RejectedError(401, 0, "401: Unauthorized")


def _bucket(request: web.Request) -> str:
    """The route with its major parameters, as the real limits go."""
    match = request.match_info
    if "token" in match:
        return f"webhooks/{match['token']}"
    return f"{request.method}/{match.get('channel')}"


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """As Discord sends it: without a charset, which clients compare."""
    body = json.dumps(data).encode()
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
