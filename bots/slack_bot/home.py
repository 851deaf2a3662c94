"""The app's home, and the first sight of the agent's view."""

from __future__ import annotations

from typing import Any

from bots.slack_bot import blocks, wording
from bots.slack_bot.outbound import Outbounds
from bots.slack_bot.workspaces import ApiRefusedError, Workspace


class Home:
    """What people see before they ask anything.

    Args:
        outbounds: Remembers which workspaces have the agent's view.
    """

    def __init__(self, outbounds: Outbounds) -> None:
        self._outbounds = outbounds

    async def opened(self, workspace: Workspace, event: dict[str, Any]) -> None:
        """Somebody opens the app."""
        if event.get("tab") == "messages":
            await self._suggest(workspace, str(event.get("channel", "")))
        elif event.get("tab") == "home":
            await self.publish(workspace, str(event.get("user", "")))

    async def publish(self, workspace: Workspace, user: str) -> None:
        """Bring somebody's home up to date."""
        shown = [blocks.header("Palaver"), blocks.section(wording.HELP), blocks.context(wording.MACHINE)]
        await workspace.call("views.publish", user_id=user, view={"type": "home", "blocks": shown})

    async def _suggest(self, workspace: Workspace, channel: str) -> None:
        prompts = [{"title": title, "message": message} for title, message in wording.SUGGESTED_PROMPTS]
        try:
            await workspace.call("assistant.threads.setSuggestedPrompts", channel_id=channel, prompts=prompts)
        except ApiRefusedError:
            self._outbounds.of(workspace.team).agent.missing()
