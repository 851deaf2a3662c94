"""/knowledge and the shortcut that adds a message, its thread and its files; for the admins of a workspace."""

from __future__ import annotations

from typing import Any

from bots import knowledge_desk
from bots.delivery.surface import SurfaceError
from bots.slack_bot import markup
from bots.slack_bot.files import Files
from bots.slack_bot.members import Members
from bots.slack_bot.workspaces import Workspace
from workers.errors import WorkersError

#: The shortcut in a message's menu, as the manifest names it.
LEARN_SHORTCUT = "learn_message"
USAGE = (
    "`/knowledge add https://…` adds a page, `/knowledge list` lists what is known, `/knowledge remove ID` removes a "
    "document. Files, messages and threads are added by the menu of their message: *Add to knowledge*."
)
NOT_AN_ADMIN = "Only an admin of the workspace can change what I know."
_MOST_MESSAGES = 200


class KnowledgeAdmin:
    """Changes what a workspace knows.

    Args:
        members: Tells who is an admin.
        files: Fetches files of messages.
    """

    def __init__(self, members: Members, files: Files) -> None:
        self._members = members
        self._files = files

    async def command(self, workspace: Workspace, user: str, text: str) -> str:
        """What came of a command, in ``mrkdwn``.

        Raises:
            WorkersError: A document cannot be added or removed; the message says why.
        """
        if not await self._members.is_admin(workspace, user):
            return NOT_AN_ADMIN
        verb, _, rest = text.strip().partition(" ")
        rest = rest.strip().strip("<>").partition("|")[0]
        match verb.lower():
            case "add" if rest:
                return _mrkdwn(await knowledge_desk.add_address(workspace.tenant, rest))
            case "list":
                return _mrkdwn(await knowledge_desk.listed(workspace.tenant))
            case "remove" if rest:
                return await knowledge_desk.remove(workspace.tenant, rest.strip("`"))
            case _:
                return USAGE

    async def message(self, workspace: Workspace, user: str, channel: str, message: dict[str, Any]) -> str:
        """Add a message: its files if it has some, and otherwise its text with the thread below it.

        Raises:
            WorkersError: It cannot be added; the message says why.
        """
        if not await self._members.is_admin(workspace, user):
            return NOT_AN_ADMIN
        ts, tenant = str(message.get("ts", "")), workspace.tenant
        told = []
        for file in message.get("files") or []:
            name = str(file.get("name") or "document.txt")
            content = await self._files.document(workspace, file)
            told.append(await knowledge_desk.add_file(tenant, name, content, str(file.get("permalink") or "")))
        if not told:
            thread = str(message.get("thread_ts") or "")
            texts = await self._thread(workspace, channel, ts) if thread == ts else [str(message.get("text") or "")]
            link = await self._link(workspace, channel, ts)
            plain = [markup.plain(text, workspace.bot_user) for text in texts]
            told.append(await knowledge_desk.add_messages(tenant, plain, link))
        return _mrkdwn("\n".join(told))

    async def _thread(self, workspace: Workspace, channel: str, ts: str) -> list[str]:
        answer = await workspace.ask("conversations.replies", channel=channel, ts=ts, limit=_MOST_MESSAGES)
        return [str(each.get("text") or "") for each in answer.get("messages", [])]

    async def _link(self, workspace: Workspace, channel: str, ts: str) -> str:
        """Where people can open a message; a place without an address if the platform does not say."""
        try:
            answer = await workspace.ask("chat.getPermalink", channel=channel, message_ts=ts)
        except (SurfaceError, WorkersError):
            return f"slack:{channel}/{ts}"
        return str(answer.get("permalink") or f"slack:{channel}/{ts}")


def _mrkdwn(text: str) -> str:
    """Backslashes before signs are Markdown's; here they would be seen."""
    return markup.escaped(text.replace("\\", ""))
