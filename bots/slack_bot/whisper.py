"""Words for one person alone, wherever that person has just done something."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from bots.delivery.surface import SlowDownError, SurfaceError
from bots.slack_bot import blocks
from bots.slack_bot.private_surfaces import ResponseUrls
from bots.slack_bot.workspaces import Workspace
from workers.errors import WorkersError

#: How often the platform may ask to wait, and for how long, before somebody is not told after all.
_REFUSALS = 4
_LONGEST_PAUSE_S = 30.0
#: So that it is not taken for an answer's beginning.
_MARK: dict[str, Any] = {"metadata": {"event_type": "palaver_notice", "event_payload": {}}}

_log = logging.getLogger("palaver.slack")


class Whisper:
    """Tells somebody something privately; that it could not be told is logged and returned, and no error.

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
    ) -> bool:
        """Say it in a channel; in a direct message, where nobody else reads, as a message.

        Returns:
            Whether it was said. What was not answered may have been said all the same, so it is not tried again here.
        """
        content = {"text": text, "blocks": shown or [blocks.section(text)], "thread_ts": thread or None}
        method, whose = (
            ("chat.postMessage", _MARK) if channel.startswith("D") else ("chat.postEphemeral", {"user": user})
        )
        for refusals in range(1, _REFUSALS + 1):
            try:
                await workspace.call(method, channel=channel, **whose, **content)
            except (SurfaceError, WorkersError) as error:
                if isinstance(error, SlowDownError) and refusals < _REFUSALS:
                    await asyncio.sleep(min(error.retry_after_s, _LONGEST_PAUSE_S))
                    continue
                _log.warning("somebody in workspace %s could not be told: %s", workspace.team, error)
                return False
            return True
        return False

    async def back(
        self,
        workspace: Workspace,
        response_url: str,
        channel: str,
        user: str,
        text: str,
        shown: list[blocks.Block] | None = None,
    ) -> bool:
        """``to`` through a command's or a button's ``response_url``, or in the channel when that has run out."""
        body = {"response_type": "ephemeral", "replace_original": False, "text": text}
        try:
            await self._urls.send(response_url, body | {"blocks": shown or [blocks.section(text)]})
        except (SurfaceError, WorkersError):
            return await self.to(workspace, channel, user, text, shown=shown)
        return True
