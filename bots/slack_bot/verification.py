"""Where a picture came from: asked in a message's menu, or with /verify and the link of a message; told privately."""

from __future__ import annotations

import re
from typing import Any

from bots.delivery.surface import SurfaceError
from bots.slack_bot.files import Files
from bots.slack_bot.markup import escaped
from bots.slack_bot.workspaces import Workspace
from bots.verification import MOST_PICTURES, NO_PICTURE, Verifier
from workers.errors import WorkersError

#: The shortcut in a message's menu, as the manifest names it.
VERIFY_SHORTCUT = "verify_message"
USAGE = (
    "Choose *Where is this from?* in the menu of a message with a picture, or write `/verify` and the link of that "
    "message."
)
NOT_READABLE = "That message cannot be read: invite me to its channel first."
_LINK = re.compile(r"/archives/([A-Z0-9]{5,20})/p(\d{10})(\d{6})(?:\?thread_ts=(\d+\.\d+))?")


class Verification:
    """Looks at the pictures of messages.

    Args:
        verifier: Looks at pictures.
        files: Fetches them.
    """

    def __init__(self, verifier: Verifier, files: Files) -> None:
        self._verifier = verifier
        self._files = files

    async def of_link(self, workspace: Workspace, text: str) -> str:
        """Where the pictures of a linked message came from, in ``mrkdwn``."""
        found = _LINK.search(text)
        if found is None:
            return USAGE
        channel, ts = found[1], f"{found[2]}.{found[3]}"
        try:
            answer = await workspace.ask("conversations.replies", channel=channel, ts=found[4] or ts, limit=200)
        except SurfaceError:
            return NOT_READABLE
        messages: list[dict[str, Any]] = [each for each in answer.get("messages", []) if str(each.get("ts")) == ts]
        return await self.of_message(workspace, messages[0] if messages else {})

    async def of_message(self, workspace: Workspace, message: dict[str, Any]) -> str:
        """Where the pictures of a message came from, in ``mrkdwn``."""
        files = [each for each in message.get("files") or [] if str(each.get("mimetype", "")).startswith("image/")]
        told = []
        for each in files[:MOST_PICTURES]:
            name = escaped(str(each.get("name") or "a picture")[:80])
            try:
                lines = await self._verifier.told(await self._files.picture(workspace, each))
            except WorkersError as error:
                lines = [str(error)]
            told.append(f"*{name}*: " + "\n".join(map(escaped, lines)))
        return "\n".join(told) or NO_PICTURE
