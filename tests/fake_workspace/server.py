"""The whole platform as one server, and what people do in it."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake_workspace.content import Message
from tests.fake_workspace.delivery import Delivery, Socket
from tests.fake_workspace.rules import Rules
from tests.fake_workspace.web_api import WebApi
from tests.fake_workspace.workspace import APP_ID, Ack, Team, Upload, Workspace

_POLL_S = 0.02


class FakeWorkspace(Workspace):
    """Listens on a free port of this machine; use as an async context manager.

    Args:
        rules: Its limits.
    """

    def __init__(self, rules: Rules | None = None) -> None:
        super().__init__(rules or Rules())
        self.web_api = WebApi(self)
        self.socket = Socket(self)
        self.delivery = Delivery(self, self.socket)
        self.web_api.echo = self._echo
        self._tasks: set[asyncio.Task[Any]] = set()
        self._runner: web.AppRunner | None = None
        self.echoes = True

    async def __aenter__(self) -> FakeWorkspace:
        app = web.Application(client_max_size=64 * 2**20)
        app.router.add_route("*", "/api/{method}", self.web_api.handle)
        app.router.add_post("/upload/{id}", self.web_api.upload)
        app.router.add_get("/files/{id}", self.web_api.download)
        app.router.add_post("/response/{id}", self.web_api.respond)
        app.router.add_get("/link", self.socket.handle)
        app.router.add_get("/foreign/{name:.*}", self._foreign)
        self._runner = web.AppRunner(app, shutdown_timeout=0.2)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.web_api.base_url = f"http://{host}:{port}"
        #: The same server under another name: another origin to whoever compares origins.
        self.foreign_url = f"http://localhost:{port}/foreign"
        self.web_api.socket_url = lambda: f"ws://{host}:{port}/link?ticket={secrets.token_hex(8)}"
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await self.socket.close()
        await self.delivery.close()
        if self._runner:
            await self._runner.cleanup()

    @property
    def api_url(self) -> str:
        return f"{self.web_api.base_url}/api/"

    async def _foreign(self, request: web.Request) -> web.Response:
        if "Authorization" in request.headers or "xoxb" in str(request.url):
            self.tokens_elsewhere.append(str(request.url))
        return web.Response(body=b"foreign bytes")

    def _echo(self, event: dict[str, Any], team: Team) -> None:
        """The app hears what it does itself, as on the platform."""
        if self.echoes:
            kind = self.channel(event["channel"]).kind
            echoed = {"event_ts": self.ts(), "channel_type": kind, **event, "type": "message"}
            self.background(self.delivery.event(self.envelope(echoed, team.id)))

    def background(self, coroutine: Any) -> asyncio.Task[Any]:
        task = asyncio.ensure_future(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def envelope(self, event: dict[str, Any], team: str = "T1", event_id: str | None = None) -> dict[str, Any]:
        known = self.teams[team]
        authorization = {"enterprise_id": known.enterprise, "team_id": None if known.org_install else team,
                         "user_id": known.bot_user, "is_bot": True,
                         "is_enterprise_install": known.org_install}  # fmt: skip
        shown = {"token": "x", "team_id": team, "api_app_id": APP_ID, "event": event, "type": "event_callback",
                 "event_id": event_id or "Ev" + secrets.token_hex(5).upper(), "event_time": int(time.time()),
                 "authorizations": [authorization], "is_ext_shared_channel": False}  # fmt: skip
        if known.enterprise:
            shown["enterprise_id"] = known.enterprise
        return shown

    # What people do

    async def say(
        self,
        user: str,
        channel: str,
        text: str,
        thread_ts: str | None = None,
        *,
        team: str = "T1",
        files: list[dict[str, Any]] | None = None,
        subscribed: bool = True,
        **more: Any,
    ) -> str:
        """Write a message; the app hears of it as the platform would tell. ``{bot}`` stands for a mention of the app.

        Returns:
            Its ``ts``.
        """
        bot = f"<@{self.teams[team].bot_user}>"
        place = self.channel(channel, team)
        message = Message(channel, self.ts(), user, text.replace("{bot}", bot), [], thread_ts, team=team)
        message.files = files or []
        self.add(message)
        event = {**message.public(), "channel": channel, "event_ts": message.ts, "client_msg_id": secrets.token_hex(8),
                 **({"subtype": "file_share"} if files else {}), **more}  # fmt: skip
        deliveries = []
        if bot in message.text and place.kind != "im":
            mention = {**event, "type": "app_mention"}
            deliveries.append(self.delivery.event(self.envelope(mention, team)))
        if subscribed:
            heard = {**event, "channel_type": place.kind}
            deliveries.append(self.delivery.event(self.envelope(heard, team)))
        await asyncio.gather(*deliveries)
        return message.ts

    async def command(self, user: str, channel: str, command: str, text: str = "", team: str = "T1") -> Ack:
        """Type a slash command."""
        self.channel(channel, team)
        known = self.teams[team]
        made = self.new_response_url(channel, user)
        payload = {"token": "x", "team_id": team, "team_domain": "fake", "channel_id": channel, "channel_name": "c",
                   "user_id": user, "user_name": user.lower(), "command": command, "text": text, "api_app_id": APP_ID,
                   "is_enterprise_install": str(known.org_install).lower(), "trigger_id": self.new_trigger(user).id,
                   "response_url": f"{self.web_api.base_url}/response/{made.id}"}  # fmt: skip
        if known.enterprise:
            payload["enterprise_id"] = known.enterprise
        ack = await self.delivery.command(payload)
        self._show(ack, channel, user)
        return ack

    def _show(self, ack: Ack, channel: str, user: str) -> None:
        """What a command was answered with is shown to who typed it."""
        reply = ack.payload
        if ack.ok and reply:
            known = {"text": reply} if isinstance(reply, str) else reply
            if known.get("text") or known.get("blocks"):
                team = next(iter(self.teams.values()))
                message = Message(channel, self.ts(), team.bot_user, known.get("text", ""), known.get("blocks", []))
                message.bot_id = team.bot_id
                message.ephemeral_for = None if known.get("response_type") == "in_channel" else user
                self.add(message)

    def _interaction(self, kind: str, user: str, team: str, **more: Any) -> dict[str, Any]:
        known = self.teams[team]
        enterprise = {"id": known.enterprise, "name": "e"} if known.enterprise else None
        return {"type": kind, "user": {"id": user, "username": user.lower(), "team_id": team}, "api_app_id": APP_ID,
                "token": "x", "trigger_id": self.new_trigger(user).id, "team": {"id": team, "domain": "fake"},
                "enterprise": enterprise, "is_enterprise_install": known.org_install, **more}  # fmt: skip

    async def press(self, user: str, message: Message, label: str, team: str = "T1") -> Ack:
        """Press the button of a message whose label contains this."""
        return await self.press_element(user, message, message.button(label), team)

    async def press_element(self, user: str, message: Message, element: dict[str, Any], team: str = "T1") -> Ack:
        made = self.new_response_url(message.channel, user, message.ts)
        container = {"type": "message", "message_ts": message.ts, "channel_id": message.channel,
                     "is_ephemeral": bool(message.ephemeral_for), "thread_ts": message.thread_ts}  # fmt: skip
        action = {"action_id": element["action_id"], "block_id": "b", "type": element["type"],
                  "value": element.get("value"), "action_ts": self.ts()}  # fmt: skip
        payload = self._interaction(
            "block_actions", user, team, container=container, channel={"id": message.channel, "name": "c"},
            message=message.public(), state={"values": {}}, actions=[action],
            response_url=f"{self.web_api.base_url}/response/{made.id}",
        )  # fmt: skip
        return await self.delivery.interaction(payload)

    async def press_in_view(self, user: str, view: dict[str, Any], action_id: str, team: str = "T1") -> Ack:
        """Press a button of a view or of the home tab."""
        elements = [
            part for block in view["blocks"] for part in [*block.get("elements", []), block.get("accessory") or {}]
        ]
        element = next(part for part in elements if part.get("action_id") == action_id)
        action = {"action_id": action_id, "block_id": "b", "type": element["type"], "value": element.get("value"),
                  "action_ts": self.ts()}  # fmt: skip
        container = {"type": "view", "view_id": view["id"]}
        return await self.delivery.interaction(
            self._interaction("block_actions", user, team, container=container, view=view, actions=[action])
        )

    async def submit(self, user: str, view: dict[str, Any], values: dict[str, Any], team: str = "T1") -> Ack:
        """Submit a modal; ``values`` maps block ids to texts, or to the element's whole state."""
        state: dict[str, Any] = {}
        for block in view["blocks"]:
            if block.get("type") == "input":
                element, block_id = block["element"], block["block_id"]
                given = values.get(block_id, element.get("initial_value"))
                value = given if isinstance(given, dict) else {"type": element["type"], "value": given}
                state[block_id] = {element["action_id"]: value}
        shown = {**view, "state": {"values": state}}
        return await self.delivery.interaction(
            self._interaction("view_submission", user, team, view=shown, response_urls=[])
        )

    async def shortcut(self, user: str, message: Message, callback_id: str, team: str = "T1") -> Ack:
        """Choose a shortcut in the menu of a message."""
        made = self.new_response_url(message.channel, user)
        payload = self._interaction(
            "message_action", user, team, callback_id=callback_id, message=message.public(), message_ts=message.ts,
            channel={"id": message.channel, "name": "c"}, action_ts=self.ts(),
            response_url=f"{self.web_api.base_url}/response/{made.id}",
        )  # fmt: skip
        return await self.delivery.interaction(payload)

    async def open_home(self, user: str, tab: str = "home", team: str = "T1") -> Ack:
        """Open the app's home."""
        channel = self.channel("D" + user.removeprefix("U"), team)
        event = {"type": "app_home_opened", "user": user, "channel": channel.id, "tab": tab, "event_ts": self.ts()}
        return await self.delivery.event(self.envelope(event, team))

    async def press_native_stop(self, user: str, channel: str, thread_ts: str, team: str = "T1") -> Ack:
        """Press the platform's own stop button; it is there while the session is ``processing``."""
        session = self.sessions.get((channel, thread_ts), {})
        assert session.get("status") == "processing", session
        assert self.rules.agent_stop
        stopped = []
        for message in self.messages:
            if message.channel == channel and message.thread_ts == thread_ts and message.streaming:
                message.streaming, message.stopped_by_user = False, True
                stopped.append(message.ts)
        event = {"type": "agent_session_stopped", "channel": channel, "thread_ts": thread_ts, "user": user,
                 "streaming_message_ts": stopped, "event_ts": self.ts()}  # fmt: skip
        return await self.delivery.event(self.envelope(event, team))

    def share(self, name: str, data: bytes, mimetype: str, url: str | None = None) -> dict[str, Any]:
        """A file that somebody uploaded, as it appears in a message."""
        file = Upload("F" + secrets.token_hex(5).upper(), name, len(data), "", data, done=True)
        self.uploads[file.id] = file
        address = url or f"{self.web_api.base_url}/files/{file.id}"
        return {"id": file.id, "name": name, "mimetype": mimetype, "size": len(data), "url_private": address,
                "url_private_download": address, "mode": "hosted"}  # fmt: skip

    # Waiting

    async def wait(
        self, condition: Callable[[], Any], what: str = "something to happen", timeout_s: float = 40.0
    ) -> Any:
        """Return what the condition gives as soon as it is true."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            self.streams_tick()
            found = condition()
            if found:
                return found
            if time.monotonic() > deadline_s:
                last = [(call.method, call.answer) for call in self.calls[-12:]]
                shown = [(each.channel, each.thread_ts, each.body[:80]) for each in self.messages[-8:]]
                raise AssertionError(f"waited in vain for {what}; last calls {last}; last messages {shown}")
            await asyncio.sleep(_POLL_S)
