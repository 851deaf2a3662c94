"""The app's home, the first sight of the agent's view, and the workspace's configuration."""

from __future__ import annotations

from typing import Any

from bots.slack_bot import blocks, config_form, wording
from bots.slack_bot.account import Account
from bots.slack_bot.members import Members
from bots.slack_bot.outbound import Outbounds
from bots.slack_bot.workspaces import ApiRefusedError, Workspace
from bots.tenant_config import TenantConfigs
from bots.tenant_rules import TenantRules
from workers.errors import SettingsError

CONFIGURE = "palaver_configure"


class Home:
    """What people see before they ask anything.

    Args:
        outbounds: Remembers which workspaces have the agent's view.
        account: What somebody has used.
        configs: What workspaces have decided.
        rules: Know what the operator allows them.
        members: Tells who may decide.
    """

    def __init__(
        self, outbounds: Outbounds, account: Account, configs: TenantConfigs, rules: TenantRules, members: Members
    ) -> None:
        self._outbounds = outbounds
        self._account = account
        self._configs = configs
        self._rules = rules
        self._members = members

    async def opened(self, workspace: Workspace, event: dict[str, Any]) -> None:
        """Somebody opens the app."""
        if event.get("tab") == "messages":
            await self._suggest(workspace, str(event.get("channel", "")))
        elif event.get("tab") == "home":
            await self.publish(workspace, str(event.get("user", "")))

    async def publish(self, workspace: Workspace, user: str) -> None:
        """Bring somebody's home up to date."""
        shown = [
            blocks.header("Palaver"),
            blocks.section(wording.HELP),
            {"type": "divider"},
            blocks.section(await self._account.usage(user)),
            *await self._account.recent(workspace, user),
        ]
        if await self._members.is_admin(workspace, user):
            button = blocks.button("Configure", CONFIGURE)
            shown += [{"type": "divider"}, blocks.section(wording.CONFIGURE, button)]
        shown.append(blocks.context(wording.MACHINE))
        await workspace.call("views.publish", user_id=user, view={"type": "home", "blocks": shown})

    async def configure(self, workspace: Workspace, user: str, trigger_id: str) -> None:
        """Open the workspace's configuration for an admin."""
        if await self._members.is_admin(workspace, user):
            ceilings = await self._rules.ceilings()
            view = config_form.view(await self._configs.of(workspace.tenant), ceilings)
            await workspace.call("views.open", trigger_id=trigger_id, view=view)

    async def configured(self, workspace: Workspace, user: str, view: dict[str, Any]) -> dict[str, str]:
        """Keep what an admin has decided; returns what is wrong with it by block."""
        wanted, wrong = config_form.values(view), {}
        if not await self._members.is_admin(workspace, user):
            return dict.fromkeys(list(wanted)[:1], wording.NOT_AN_ADMIN)
        ceilings = await self._rules.ceilings()
        for name, text in wanted.items():
            try:
                await self._configs.change(workspace.tenant, name, text, ceilings)
            except SettingsError as error:
                wrong[config_form.block_of(view, name)] = str(error)
        return wrong

    async def _suggest(self, workspace: Workspace, channel: str) -> None:
        prompts = [{"title": title, "message": message} for title, message in wording.SUGGESTED_PROMPTS]
        try:
            await workspace.call("assistant.threads.setSuggestedPrompts", channel_id=channel, prompts=prompts)
        except ApiRefusedError:
            self._outbounds.of(workspace.team).agent.missing()
