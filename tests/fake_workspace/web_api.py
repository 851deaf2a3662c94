"""The Web API over HTTP: authorization, tiers and faults around the methods; uploads, downloads and response_urls."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake_workspace.content import ApiError, Message
from tests.fake_workspace.methods import METHODS
from tests.fake_workspace.workspace import APP_TOKEN, Call, Team, Workspace

_NO_JSON = {
    "conversations.history",
    "conversations.info",
    "conversations.replies",
    "files.getUploadURLExternal",
    "files.info",
    "users.info",
}


class WebApi:
    """Answers ``POST /api/{method}`` and uploads.

    Args:
        workspace: The state.
        base_url: Of this server, without a slash at the end; known once it listens.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace
        self.base_url = ""
        self.socket_url: Callable[[], str] = lambda: ""
        self.echo: Callable[[dict[str, Any], Team], None] = lambda event, team: None

    async def handle(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["method"]
        args, token = await _arguments(request)
        faults = self.workspace.faults
        await asyncio.sleep(faults.slow_s.get(name, 0.0))
        if faults.breaks(name):
            return self._note(name, args, token, "503", web.Response(status=503, text="upstream"))
        if faults.limits(name):
            return self._limited(name, args, token, faults.retry_after_s)
        team = self.workspace.team_of_token(token)
        if name == "apps.connections.open":
            return self._connection(name, args, token)
        if team is None:
            return self._note(
                name, args, token, "invalid_auth", web.json_response({"ok": False, "error": "invalid_auth"})
            )
        wait_s = self.workspace.tiers.refused(team.id, name, args.get("channel"))
        if wait_s:
            return self._limited(name, args, token, wait_s)
        answer = self._run(name, team, args)
        if faults.loses(name) and request.transport is not None:
            self._note(name, args, token, "lost", web.Response())
            request.transport.close()
        return self._note(name, args, token, answer.get("error", "ok"), web.json_response(answer))

    def _run(self, name: str, team: Team, args: dict[str, Any]) -> dict[str, Any]:
        self.workspace.streams_tick()
        try:
            planned = self.workspace.faults.error(name)
            run = METHODS["unknown"] if planned or name not in METHODS else METHODS[name]
            return {"ok": True, **run(self, team, {**args, "error": planned or "unknown_method"})}
        except ApiError as error:
            return {"ok": False, "error": error.error, **error.more}

    def _limited(self, name: str, args: dict[str, Any], token: str, retry_after_s: int) -> web.Response:
        response = web.json_response(
            {"ok": False, "error": "ratelimited"}, status=429, headers={"Retry-After": str(retry_after_s)}
        )
        return self._note(name, args, token, "ratelimited", response)

    def _note(self, name: str, args: dict[str, Any], token: str, answer: str, response: web.Response) -> web.Response:
        self.workspace.calls.append(Call(name, args, token, answer, time.monotonic()))
        return response

    def _connection(self, name: str, args: dict[str, Any], token: str) -> web.Response:
        if token != APP_TOKEN:
            answer: dict[str, Any] = {"ok": False, "error": "invalid_auth" if token else "not_authed"}
        else:
            answer = {"ok": True, "url": self.socket_url()}
        return self._note(name, args, token, answer.get("error", "ok"), web.json_response(answer))

    async def upload(self, request: web.Request) -> web.Response:
        """``POST /upload/{id}``: the platform's upload address; it wants no token."""
        if "Authorization" in request.headers:
            self.workspace.tokens_elsewhere.append("upload")
        file = self.workspace.uploads.get(request.match_info["id"])
        data = await request.read()
        if self.workspace.faults.breaks("upload"):
            return web.Response(status=503, text="upstream")
        if file is None or len(data) != file.length:
            return web.Response(status=400, text="length")
        file.data = data
        return web.Response(text=f"OK - {len(data)}")

    async def download(self, request: web.Request) -> web.StreamResponse:
        """``GET /files/{id}``: private files, only with the token; without it the login page, as the platform does."""
        file = self.workspace.uploads.get(request.match_info["id"])
        token = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if file is None or file.data is None:
            return web.Response(status=404)
        if file.name.startswith("redirect:"):
            return web.Response(status=302, headers={"Location": file.name.removeprefix("redirect:")})
        if self.workspace.team_of_token(token) is None:
            return web.Response(text="<html>Sign in</html>", content_type="text/html")
        return web.Response(body=file.data, content_type="application/octet-stream")

    async def respond(self, request: web.Request) -> web.Response:
        """``POST /response/{id}``: a response_url."""
        made = self.workspace.response_urls.get(request.match_info["id"])
        rules = self.workspace.rules
        if "Authorization" in request.headers:
            self.workspace.tokens_elsewhere.append("response_url")
        if self.workspace.faults.breaks("response_url"):
            return web.Response(status=503, text="upstream")
        if made is None or time.monotonic() - made.made_s > rules.response_url_life_s:
            if made:
                made.refused += 1
            return web.json_response({"ok": False, "error": "expired_url"}, status=404)
        if len(made.uses) >= rules.response_url_uses:
            made.refused += 1
            return web.json_response({"ok": False, "error": "used_url"}, status=404)
        body = await request.json()
        made.uses.append(body)
        self._respond(made, body)
        return web.Response(text="ok")

    def _respond(self, made: Any, body: dict[str, Any]) -> None:
        found = self.workspace.find(made.channel, made.message_ts) if made.message_ts else None
        if body.get("delete_original"):
            if found:
                found.deleted = True
            return
        if body.get("replace_original") and found:
            found.text, found.blocks = body.get("text", ""), body.get("blocks", [])
            found.record()
            return
        visible = None if body.get("response_type") == "in_channel" else made.user
        team = next(iter(self.workspace.teams.values()))
        message = Message(
            made.channel, self.workspace.ts(), team.bot_user, body.get("text", ""), body.get("blocks", [])
        )
        message.bot_id, message.ephemeral_for, message.thread_ts = team.bot_id, visible, body.get("thread_ts")
        self.workspace.add(message)


async def _arguments(request: web.Request) -> tuple[dict[str, Any], str]:
    args: dict[str, Any] = dict(request.query)
    if request.content_type == "application/json":
        body = await request.json()
        # Methods that read take no JSON: the platform overlooks it, and misses what was in it.
        args |= {} if request.match_info["method"] in _NO_JSON else body
    else:
        args |= dict(await request.post())
    token = request.headers.get("Authorization", "").removeprefix("Bearer ") or args.pop("token", "")
    for name in ("blocks", "view", "metadata", "prompts", "files", "chunks", "loading_messages"):
        if isinstance(args.get(name), str):
            args[name] = json.loads(args[name])
    return args, token
