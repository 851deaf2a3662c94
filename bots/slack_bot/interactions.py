"""Buttons, shortcuts and modals."""

from __future__ import annotations

from typing import Any

from bots.conversation import Conversations
from bots.delivery import buttons
from bots.service import ChatService
from bots.slack_bot import wording
from bots.slack_bot.members import Members
from bots.slack_bot.payloads import Press, conversation_of
from bots.slack_bot.whisper import Whisper
from bots.slack_bot.workspaces import Workspace
from workers.errors import JobNotFoundError, NotAllowedError


class Interactions:
    """What happens when somebody presses, chooses or submits something.

    Args:
        service: Stops jobs.
        conversations: Tells which jobs of a thread have no answer yet.
        members: Tells who may stop others' jobs.
        whisper: Tells somebody why not.
    """

    def __init__(self, service: ChatService, conversations: Conversations, members: Members, whisper: Whisper) -> None:
        self._service = service
        self._conversations = conversations
        self._members = members
        self._whisper = whisper

    async def pressed(self, press: Press) -> None:
        """A button under an answer."""
        button = buttons.parse(press.action_id)
        if button is None:
            await self._tell(press, wording.UNKNOWN_BUTTON)
        elif button.action == "stop":
            await self._stop(press, button.job_id)

    async def session_stopped(self, workspace: Workspace, event: dict[str, Any]) -> None:
        """The platform's own Stop: everything in that thread which this person asked, or all of it for a moderator."""
        channel, thread, user = (str(event.get(name, "")) for name in ("channel", "thread_ts", "user"))
        history = await self._conversations.history(workspace.tenant, conversation_of(channel, thread))
        waiting = [turn.job_id for turn in history.turns if turn.answer is None]
        moderator = bool(waiting) and await self._members.is_admin(workspace, user)
        for job_id in waiting:
            try:
                await self._service.stop(job_id, user, moderator)
            except JobNotFoundError:
                pass
            except NotAllowedError as error:
                await self._whisper.to(workspace, channel, user, str(error), thread)

    async def shortcut(self, workspace: Workspace, body: dict[str, Any]) -> None:
        """A shortcut in a message's menu."""

    async def submitted(self, workspace: Workspace, body: dict[str, Any]) -> dict[str, str]:
        """A modal; returns what is wrong with it by block."""
        del workspace, body
        return {}

    async def _stop(self, press: Press, job_id: str) -> None:
        if not job_id.startswith(f"{press.workspace.tenant}__"):
            await self._tell(press, "This belongs to another workspace.")
            return
        try:
            moderator = await self._members.is_admin(press.workspace, press.user)
            await self._service.stop(job_id, press.user, moderator)
        except (JobNotFoundError, NotAllowedError) as error:
            await self._tell(press, str(error))

    async def _tell(self, press: Press, text: str) -> None:
        await self._whisper.back(press.workspace, press.response_url, press.channel, press.user, text)
