"""Buttons, shortcuts and modals: what was pressed, chosen or submitted, and who hears about it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Awaitable
from typing import Any

from bots import image_flags
from bots.conversation import Conversations
from bots.delivery import buttons
from bots.delivery.buttons import Button
from bots.delivery.surface import GoneError, SlowDownError, SurfaceError
from bots.image_flags import FlagError
from bots.service import ChatService
from bots.slack_bot import account, config_form, home, markup, wording
from bots.slack_bot.account import Account
from bots.slack_bot.files import picture_of
from bots.slack_bot.home import Home
from bots.slack_bot.imagine import Imagine
from bots.slack_bot.intake import Intake
from bots.slack_bot.knowledge import LEARN_SHORTCUT, KnowledgeAdmin
from bots.slack_bot.members import Members
from bots.slack_bot.modals import IMAGE_MODAL, PROMPT_BLOCK, ImageForm, text_of
from bots.slack_bot.payloads import Press, conversation_of, digest
from bots.slack_bot.remedies import Remedies
from bots.slack_bot.support import AMEND_MODAL, SupportDesk, is_support
from bots.slack_bot.target import IMAGE, Target
from bots.slack_bot.verification import VERIFY_SHORTCUT, Verification
from bots.slack_bot.whisper import Whisper
from bots.slack_bot.workspaces import ApiRefusedError, PlatformUnavailableError, Workspace
from generation.errors import GenerationError
from workers.contract import tenant_of
from workers.errors import JobNotFoundError, NotAllowedError, WorkersError

#: The shortcut in a message's menu, as the manifest names it.
IMAGINE_SHORTCUT = "imagine_message"
_TOO_LATE = frozenset({"expired_trigger_id", "exchanged_trigger_id", "trigger_expired", "invalid_trigger_id"})

_log = logging.getLogger("palaver.slack")


class Interactions:
    """What happens when somebody presses, chooses or submits something.

    Args:
        intake: Begins work.
        service: Stops jobs.
        conversations: Tells which jobs of a thread have no answer yet.
        imagine: Pictures.
        account: What somebody has used, and what is kept.
        home: The app's home and the workspace's configuration.
        members: Tells who may stop others' jobs.
        whisper: Tells somebody why not.
        remedies: What can be done about refusals.
        verification: Tells where pictures came from.
        support: Hand-overs.
        knowledge: Changes what is known.
    """

    def __init__(
        self,
        intake: Intake,
        service: ChatService,
        conversations: Conversations,
        imagine: Imagine,
        account: Account,
        home: Home,
        members: Members,
        whisper: Whisper,
        remedies: Remedies,
        verification: Verification,
        support: SupportDesk,
        knowledge: KnowledgeAdmin,
    ) -> None:
        self._intake = intake
        self._service = service
        self._conversations = conversations
        self._imagine = imagine
        self._account = account
        self._home = home
        self._members = members
        self._whisper = whisper
        self._support = support
        self._remedies = remedies
        self._verification = verification
        self._knowledge = knowledge

    async def pressed(self, press: Press) -> None:
        """A button under an answer."""
        button = buttons.parse(press.action_id)
        try:
            if button is not None and is_support(button):
                if told := await self._support.pressed(press, button):
                    await self._tell(press, markup.escaped(told))
            elif button is not None:
                await self._act(press, button)
            elif not await self._account_pressed(press):
                await self._tell(press, wording.UNKNOWN_BUTTON)
        except (SlowDownError, PlatformUnavailableError) as error:
            _log.info("workspace %s: a press came to nothing: %s", press.workspace.team, error)
            await self._tell(press, wording.PRESS_AGAIN)
        except SurfaceError as error:
            _log.warning("workspace %s: a press came to nothing: %s", press.workspace.team, error)
            late = isinstance(error, ApiRefusedError) and error.error in _TOO_LATE
            await self._tell(press, wording.TOO_LATE if late else wording.REFUSED)
        except (WorkersError, GenerationError) as error:
            await self._tell(press, markup.escaped(str(error)))

    async def _act(self, press: Press, button: Button) -> None:
        match button.action:
            case "stop":
                await self._stop(press, button)
            case "delete":
                await self._delete(press, button)
            case "prompt":
                await self._tell(press, f"```{markup.escaped(await self._imagine.text(press.workspace, button))}```")
            case "appeal" | "approve" | "deny":
                await self._remedies.pressed(press, button)
            case "smaller":
                prompt = await self._remedies.offers.take(button.job_id, press.user, press.key)
                await self._intake.ask(prompt, lambda why: self._tell(press, markup.escaped(why)))
            case "edit":
                form = ImageForm(press.channel, press.thread, button.job_id, press.asker)
                text = await self._imagine.text(press.workspace, button)
                await press.workspace.call("views.open", trigger_id=press.trigger_id, view=form.view(text))
            case _:
                await self._imagine.pressed(press, button, lambda why: self._tell(press, why))

    async def _account_pressed(self, press: Press) -> bool:
        """A button of /privacy or of the app's home; returns whether it was one."""
        match press.action_id:
            case account.EXPORT:
                kept = await self._account.export(press.workspace, press.user)
                place = (press.workspace, press.response_url, press.channel, press.user)
                await self._whisper.back(*place, wording.PRIVACY_TITLE, kept)
            case account.DELETE:
                await self._tell(press, await self._account.delete(press.workspace, press.user))
            case home.CONFIGURE:
                await self._home.configure(press.workspace, press.user, press.trigger_id)
            case _:
                return False
        return True

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
        """A shortcut in a message's menu: where it is from, that it is to be known, or that a picture begins there."""
        message, channel = body.get("message") or {}, str((body.get("channel") or {}).get("id", ""))
        if body.get("callback_id") == LEARN_SHORTCUT:
            user = str(body["user"]["id"])
            try:
                told = await self._knowledge.message(workspace, user, channel, message)
            except (SurfaceError, WorkersError) as error:
                told = markup.escaped(str(error))
            await self._whisper.back(workspace, str(body.get("response_url", "")), channel, user, told)
        if body.get("callback_id") == VERIFY_SHORTCUT:
            place = (workspace, str(body.get("response_url", "")), channel, str(body["user"]["id"]))
            await self._whisper.back(*place, await self._verification.of_message(workspace, message))
        if body.get("callback_id") != IMAGINE_SHORTCUT:
            return
        thread = str(message.get("thread_ts") or message.get("ts") or "")
        text = markup.plain(str(message.get("text") or ""), workspace.bot_user)
        asker = str(body["user"].get("username") or body["user"].get("name") or "")
        url, media_type = picture_of(message)
        view = ImageForm(channel, thread, "", asker, url, media_type).view(" ".join(text.split()))
        try:
            await workspace.call("views.open", trigger_id=str(body.get("trigger_id", "")), view=view)
        except (SurfaceError, WorkersError) as error:
            _log.info("workspace %s: a modal was not opened: %s", workspace.team, error)
            url, user = str(body.get("response_url", "")), str(body["user"]["id"])
            await self._whisper.back(workspace, url, channel, user, wording.TOO_LATE)

    async def submitted(self, workspace: Workspace, body: dict[str, Any]) -> dict[str, str]:
        """A modal; returns what is wrong with it by block."""
        view = body.get("view") or {}
        if view.get("callback_id") == config_form.CONFIG_MODAL:
            return await self._home.configured(workspace, str(body["user"]["id"]), view)
        if view.get("callback_id") == AMEND_MODAL:
            who = body["user"]
            name = str(who.get("username") or who.get("name") or who["id"])
            await self._support.amended(workspace, str(who["id"]), name, view)
        if view.get("callback_id") != IMAGE_MODAL:
            return {}
        try:
            parsed = image_flags.parse(text_of(view, PROMPT_BLOCK))
        except FlagError as error:
            return {PROMPT_BLOCK: str(error)}
        form, user = ImageForm.of(view), str(body["user"]["id"])
        target = Target(
            team=workspace.team,
            enterprise=workspace.enterprise or "",
            channel=form.channel,
            user=user,
            thread=form.thread,
            asker=form.asker,
            kind=IMAGE,
        )

        async def tell(why: str) -> bool:
            return await self._whisper.to(workspace, form.channel, user, why, form.thread)

        key = f"v-{digest(str(view.get('id', '')))}"
        await self._intake.begin(
            self._imagine.submitted(workspace, target, key, parsed, form, tell), "a submitted prompt"
        )
        return {}

    async def late(self, workspace: Workspace, body: dict[str, Any], submitting: Awaitable[dict[str, str]]) -> None:
        """Tell in a direct message what is wrong with a modal that had to be closed before that was known."""
        errors = await submitting
        if errors:
            text = f"{wording.NOT_SAVED} {markup.escaped('; '.join(errors.values()))}"
            await workspace.call("chat.postMessage", channel=str(body["user"]["id"]), text=text)

    async def _stop(self, press: Press, button: Button) -> None:
        if tenant_of(button.job_id) != press.workspace.tenant:
            raise NotAllowedError(wording.OTHER_WORKSPACE)
        moderator = await self._members.is_admin(press.workspace, press.user)
        if await self._service.stop(button.job_id, press.user, moderator) == "ended":
            await self._tell(press, wording.ENDED)

    async def _delete(self, press: Press, button: Button) -> None:
        await self._imagine.delete(press, button)
        with contextlib.suppress(GoneError):
            await press.workspace.call("chat.delete", channel=press.channel, ts=press.message)
        for file_id in press.files:
            try:
                await press.workspace.call("files.delete", file=file_id)
            except SurfaceError as error:
                _log.info("workspace %s: a picture's file was not deleted: %s", press.workspace.team, error)

    async def _tell(self, press: Press, text: str) -> bool:
        return await self._whisper.back(press.workspace, press.response_url, press.channel, press.user, text)
