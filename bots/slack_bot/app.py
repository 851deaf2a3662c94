"""The Bolt app: which listener hears what. Listeners read, begin work and acknowledge; they decide nothing."""

from __future__ import annotations

import logging
import os
import re
import traceback
from collections.abc import Awaitable, Callable
from typing import Any

from slack_bolt.async_app import AsyncAck, AsyncApp
from slack_bolt.authorization import AuthorizeResult
from slack_bolt.response import BoltResponse

from bots.slack_bot import payloads
from bots.slack_bot.chat import Chat
from bots.slack_bot.commands import Commands
from bots.slack_bot.home import Home
from bots.slack_bot.http_mode import UNREADABLE
from bots.slack_bot.intake import Intake
from bots.slack_bot.interactions import Interactions
from bots.slack_bot.workspaces import Workspace, Workspaces

Body = dict[str, Any]

_log = logging.getLogger("palaver.slack")

#: Bolt reads these by itself, and would mix its own way of authorizing with ours.
_READ_BY_BOLT = ("SLACK_BOT_TOKEN", "SLACK_CLIENT_ID", "SLACK_CLIENT_SECRET")


class Listeners:
    """What the app does when the platform tells it something.

    Args:
        workspaces: Where it is installed.
        intake: Begins work.
        chat: Messages.
        commands: Slash commands.
        interactions: Buttons, shortcuts and modals.
        home: The app's home and the agent's view.
    """

    def __init__(
        self,
        workspaces: Workspaces,
        intake: Intake,
        chat: Chat,
        commands: Commands,
        interactions: Interactions,
        home: Home,
    ) -> None:
        self._workspaces = workspaces
        self._intake = intake
        self._chat = chat
        self._commands = commands
        self._interactions = interactions
        self._home = home

    def register(self, app: AsyncApp) -> None:
        """Listen to everything that the manifest subscribes to; what is left is acknowledged and forgotten."""
        app.event("message")(self.on_message)
        app.event("app_mention")(self.on_message)
        app.event("app_home_opened")(self.on_home)
        app.event("agent_session_stopped")(self.on_stop)
        app.event(re.compile(".*"))(self.on_anything)
        app.command(re.compile("/.*"))(self.on_command)
        app.action(re.compile(".*"))(self.on_press)
        app.shortcut(re.compile(".*"))(self.on_shortcut)
        app.view(re.compile(".*"))(self.on_view)
        app.view_closed(re.compile(".*"))(self.on_anything)

    async def on_message(self, body: Body, ack: AsyncAck) -> None:
        """A message was written, or the bot was mentioned."""
        workspace = self._workspace(body)
        heard = payloads.heard(body["event"], workspace) if workspace else None
        if heard:
            await self._intake.begin(self._chat.message(heard), "a message")
        await ack()

    async def on_home(self, body: Body, ack: AsyncAck) -> None:
        """Somebody looks at the app's home or at the agent's view."""
        await self._event(body, ack, self._home.opened, "the home")

    async def on_stop(self, body: Body, ack: AsyncAck) -> None:
        """Somebody pressed the platform's own Stop."""
        await self._event(body, ack, self._interactions.session_stopped, "a stop")

    async def _event(
        self, body: Body, ack: AsyncAck, work: Callable[[Workspace, Body], Awaitable[None]], what: str
    ) -> None:
        workspace = self._workspace(body)
        if workspace:

            async def run() -> None:
                await work(workspace, body["event"])

            await self._intake.begin(run(), what)
        await ack()

    async def on_command(self, body: Body, ack: AsyncAck) -> None:
        """A slash command was typed."""
        workspace = self._workspace(body)
        if workspace is None:
            await ack()
            return
        reply = await self._commands.run(payloads.command(body, workspace))
        await ack(text=reply.text, blocks=reply.shown or None, response_type="ephemeral") if reply.text else await ack()

    async def on_press(self, body: Body, ack: AsyncAck) -> None:
        """A button was pressed."""
        workspace = self._workspace(body)
        if workspace and body.get("actions"):
            await self._intake.begin(self._interactions.pressed(payloads.press(body, workspace)), "a button")
        await ack()

    async def on_shortcut(self, body: Body, ack: AsyncAck) -> None:
        """A shortcut was chosen."""
        workspace = self._workspace(body)
        if workspace:
            await self._intake.begin(self._interactions.shortcut(workspace, body), "a shortcut")
        await ack()

    async def on_view(self, body: Body, ack: AsyncAck) -> None:
        """A modal was submitted."""
        workspace = self._workspace(body)
        errors: dict[str, str] = {}
        if workspace:
            submitting = await self._intake.begin(self._interactions.submitted(workspace, body), "a modal")
            if not submitting.done():
                await self._intake.begin(self._interactions.late(workspace, body, submitting), "a late modal", 0.0)
            elif submitting.exception() is None:
                errors = submitting.result()
        if errors:
            await ack(response_action="errors", errors=errors)
        else:
            await ack()

    async def on_anything(self, ack: AsyncAck) -> None:
        """Nothing that concerns this bot."""
        await ack()

    def _workspace(self, body: Body) -> Workspace | None:
        return self._workspaces.find(*payloads.place_of(body))


def build(workspaces: Workspaces, listeners: Listeners, signing_secret: str) -> AsyncApp:
    """The app, with its listeners.

    Args:
        workspaces: Knows who we are in each workspace, so that no request has to ask the platform first.
        listeners: What it does.
        signing_secret: Checks requests in HTTP mode; Socket Mode needs none.
    """

    async def authorize(enterprise_id: str | None, team_id: str | None) -> AuthorizeResult | None:
        workspace = workspaces.find(team_id, enterprise_id)
        if workspace is None:
            return None
        return AuthorizeResult(
            enterprise_id=workspace.enterprise,
            team_id=workspace.team,
            bot_token=workspace.client.token,
            bot_id=workspace.bot_id,
            bot_user_id=workspace.bot_user,
        )

    for name in _READ_BY_BOLT:
        os.environ.pop(name, None)
    app = AsyncApp(
        name="palaver",
        client=workspaces.client(None),
        authorize=authorize,  # type: ignore[arg-type]  # None, for workspaces unknown here, is allowed but not typed
        signing_secret=signing_secret,
        # A listener acknowledges when its work is durable, not before: see ``bots.slack_bot.intake``.
        process_before_response=True,
    )
    listeners.register(app)
    app.error(_answer_error)
    return app


async def _answer_error(error: Exception) -> BoltResponse:
    """What a listener could not read is the request's fault; anything else is ours. Neither is shown or quoted."""
    malformed = isinstance(error, UNREADABLE)
    place = traceback.extract_tb(error.__traceback__)[-1]
    _log.error("a listener failed with %s at %s:%s", type(error).__name__, place.filename, place.lineno)
    said = "malformed request" if malformed else "internal error"
    return BoltResponse(status=400 if malformed else 500, body={"error": said})
