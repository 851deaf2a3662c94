"""Words for one person alone, wherever that person has just done something."""

from __future__ import annotations

import logging

from bots.delivery.surface import SurfaceError
from bots.slack_bot import blocks
from bots.slack_bot.private_surfaces import ResponseUrls
from bots.slack_bot.workspaces import Workspace
from workers.errors import WorkersError

_log = logging.getLogger("palaver.slack")


class Whisper:
    """Tells somebody something privately; that it could not be told is logged and no error.

    Args:
        urls: Sends through ``response_url``.
    """

    def __init__(self, urls: ResponseUrls) -> None:
        self._urls = urls

    async def to(
        self,
        workspace: Workspace,
        channel: str,
        user: str,
        text: str,
        thread: str = "",
        shown: list[blocks.Block] | None = None,
    ) -> None:
        """Say it in a channel; in a direct message, where nobody else reads, as a message."""
        content = {"text": text, "blocks": shown or [blocks.section(text)], "thread_ts": thread or None}
        try:
            if channel.startswith("D"):
                await workspace.call("chat.postMessage", channel=channel, **content)
            else:
                await workspace.call("chat.postEphemeral", channel=channel, user=user, **content)
        except (SurfaceError, WorkersError) as error:
            _log.warning("somebody in workspace %s could not be told: %s", workspace.team, error)

    async def back(
        self,
        workspace: Workspace,
        response_url: str,
        channel: str,
        user: str,
        text: str,
        shown: list[blocks.Block] | None = None,
    ) -> None:
        """Say it through a command's or a button's ``response_url``, or in the channel when that has run out."""
        body = {"response_type": "ephemeral", "replace_original": False, "text": text}
        try:
            await self._urls.send(response_url, body | {"blocks": shown or [blocks.section(text)]})
        except (SurfaceError, WorkersError):
            await self.to(workspace, channel, user, text, shown=shown)
