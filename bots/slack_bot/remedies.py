"""What can be done about a refusal, in Slack: appeals with the moderators' buttons, and smaller requests."""

from __future__ import annotations

import json
import logging

from bots import appeals
from bots.appeals import AppealDesk
from bots.delivery.buttons import Button
from bots.delivery.surface import GoneError, SlowDownError, SurfaceError
from bots.image_prompt import ImagePrompt
from bots.offers import Offers
from bots.service import Prompt
from bots.slack_bot import blocks
from bots.slack_bot.blocks import Block
from bots.slack_bot.markup import escaped
from bots.slack_bot.members import Members
from bots.slack_bot.payloads import Press
from bots.slack_bot.target import Target
from bots.slack_bot.whisper import Whisper
from bots.slack_bot.workspaces import ApiRefusedError, PlatformUnavailableError, Workspace, Workspaces
from bots.tenant_config import TenantConfigs
from generation.errors import GenerationError
from generation.moderation.appeals import Appeal, Outcome
from workers.contract import tenant_of
from workers.errors import WorkersError

_LISTED = 5
#: Above the buttons: why not has been said.
_UNDER = {"appeal": "To appeal, press the button.", "smaller": "Or let it be a smaller one."}

_log = logging.getLogger("palaver.slack")


class Remedies:
    """Buttons under refusals, and what they do.

    Args:
        workspaces: Where outcomes are told.
        offers: Smaller requests.
        desk: The record's side of appeals.
        configs: Tell where moderators read.
        members: Tells who is one.
        whisper: Tells somebody alone.
    """

    def __init__(
        self,
        workspaces: Workspaces,
        offers: Offers,
        desk: AppealDesk,
        configs: TenantConfigs,
        members: Members,
        whisper: Whisper,
    ) -> None:
        self._workspaces = workspaces
        self.offers = offers
        self._desk = desk
        self._configs = configs
        self._members = members
        self._whisper = whisper

    async def offer(self, prompt: Prompt | ImagePrompt, wanted: tuple[Button, ...]) -> bool:
        """Show buttons to the person whose prompt was not taken, after the words that say why; returns if it could."""
        target = Target.of(prompt.reply)
        workspace = self._workspaces.find(target.team, target.enterprise or None) if target else None
        if target is None or workspace is None:
            return False
        text = _UNDER[wanted[0].action]
        shown = [blocks.section(text), *blocks.rows(wanted)]
        if target.response_url:
            return await self._whisper.back(workspace, target.response_url, target.channel, target.user, text, shown)
        return await self._whisper.to(workspace, target.channel, target.user, text, target.thread, shown)

    async def pressed(self, press: Press, button: Button) -> None:
        """Appeal, Approve or Deny."""
        try:
            if button.action == "appeal":
                await self._tell(press, await self._appeal(press, button))
            else:
                await self._decide(press, button)
        except GenerationError as error:
            await self._tell(press, escaped(str(error)))

    async def _appeal(self, press: Press, button: Button) -> str:
        tenant = press.workspace.tenant
        route = {"team": press.workspace.team, "enterprise": press.workspace.enterprise or "", "user": press.user}
        filed = await self._desk.file(button.job_id, tenant, press.user, json.dumps(route))
        channel = (await self._configs.of(tenant)).appeals_channel
        if filed.new and channel:
            shown = _for_moderators(filed.appeal, f"<@{press.user}>")
            text = appeals.for_moderators(filed.appeal)
            try:
                await press.workspace.call("chat.postMessage", channel=channel, text=text, blocks=shown)
            except (SurfaceError, WorkersError) as error:
                _log.warning("appeal %d cannot be posted in its channel: %s", filed.appeal.appeal_id, error)
        return appeals.answer_to_asker(filed)

    async def _decide(self, press: Press, button: Button) -> None:
        tenant = press.workspace.tenant
        if tenant_of(button.job_id) != tenant or not await self._members.is_admin(press.workspace, press.user):
            await self._tell(press, appeals.NOT_A_MODERATOR)
            return
        approve = button.action == "approve"
        appeal = await self._desk.resolve(button.job_id, tenant, press.user, approve=approve)
        told = f"{appeals.for_moderators(appeal)}\n{appeals.decided_in_words(appeal, f'<@{press.user}>')}"
        try:
            shown = [blocks.section(told)]
            await press.workspace.call("chat.update", channel=press.channel, ts=press.message, text=told, blocks=shown)
        except (SurfaceError, WorkersError):  # a private list cannot be edited
            await self._tell(press, told)
        await self._desk.tell_outcomes(self.tell)

    async def waiting(self, workspace: Workspace, user: str) -> tuple[str, list[Block]]:
        """Appeals that wait, with their buttons, for an admin.

        Raises:
            WorkersError: There is no record.
        """
        if not await self._members.is_admin(workspace, user):
            return appeals.NOT_A_MODERATOR, []
        try:
            found = await self._desk.open_ones(workspace.tenant)
        except GenerationError as error:
            return escaped(str(error)), []
        shown = [block for appeal in found[:_LISTED] for block in _for_moderators(appeal)]
        return (f"{len(found)} appeals are waiting." if found else appeals.NONE_OPEN), shown

    async def tell(self, outcome: Outcome) -> bool:
        """Tell somebody the outcome in a direct message."""
        route = json.loads(outcome.route)
        workspace = self._workspaces.find(route["team"], route["enterprise"] or None)
        number = outcome.appeal.appeal_id
        if workspace is None:
            return True
        try:
            opened = await workspace.call("conversations.open", users=route["user"])
            text = appeals.outcome_in_words(outcome.appeal)
            await workspace.call("chat.postMessage", channel=opened["channel"]["id"], text=text)
        except (GoneError, ApiRefusedError) as error:
            _log.info("the outcome of appeal %d cannot be told: %s", number, error)
        except (SlowDownError, PlatformUnavailableError) as error:
            _log.warning("the outcome of appeal %d is told later: %s", number, type(error).__name__)
            return False
        return True

    async def _tell(self, press: Press, text: str) -> None:
        await self._whisper.back(press.workspace, press.response_url, press.channel, press.user, text)


def _for_moderators(appeal: Appeal, asker: str = "") -> list[Block]:
    about = escaped(appeals.for_moderators(appeal, "\0")).replace("\0", asker) if asker else ""
    about = about or escaped(appeals.for_moderators(appeal))
    return [blocks.section(about), *blocks.rows(appeals.buttons_for(appeal))]
