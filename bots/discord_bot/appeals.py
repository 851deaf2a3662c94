"""Appeals in Discord: the button under a refusal, the moderators' buttons, and /moderation."""

from __future__ import annotations

import json
import logging
from typing import Any

import discord
from discord import app_commands

from bots import appeals
from bots.appeals import AppealDesk
from bots.delivery.buttons import Button
from bots.delivery.content import View
from bots.discord_bot import handles, views
from bots.discord_bot.desk import is_moderator, whisper
from bots.tenant_config import TenantConfigs
from generation.errors import GenerationError
from generation.moderation.appeals import Appeal, Outcome
from workers.contract import tenant_of
from workers.errors import WorkersError

_SHOWN = 5
_NONCE_CHARS = 25

_log = logging.getLogger("palaver.discord")


class GuildAppeals:
    """What people and moderators do about refusals.

    Args:
        client: Sends to moderators' channels and to people.
        desk: The record's side.
        configs: Tell where moderators read.
    """

    def __init__(self, client: discord.Client, desk: AppealDesk, configs: TenantConfigs) -> None:
        self._client = client
        self._desk = desk
        self._configs = configs

    async def pressed(self, interaction: discord.Interaction, button: Button) -> None:
        """Act on Appeal, Approve and Deny."""
        try:
            if button.action == "appeal":
                await self._appeal(interaction, button)
            else:
                await self._decide(interaction, button)
        except GenerationError as error:
            await whisper(interaction, str(error))

    async def _appeal(self, interaction: discord.Interaction, button: Button) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        tenant, user = tenant_of(button.job_id), str(interaction.user.id)
        filed = await self._desk.file(button.job_id, tenant, user, json.dumps({"user": user}))
        if filed.new:
            await self._tell_moderators(tenant, filed.appeal, interaction.user.mention)
        await whisper(interaction, appeals.answer_to_asker(filed))

    async def _tell_moderators(self, tenant: str, appeal: Appeal, asker: str) -> None:
        """Post in the configured channel; without one, or where that fails, /moderation appeals lists it."""
        channel = (await self._configs.of(tenant)).appeals_channel
        if not channel:
            return
        place = self._client.get_partial_messageable(int(channel))
        try:
            await place.send(
                appeals.for_moderators(appeal, asker),
                view=views.buttons(View("", buttons=appeals.buttons_for(appeal))) or discord.utils.MISSING,
                nonce=f"appeal-{appeal.appeal_id}"[:_NONCE_CHARS],
            )
        except discord.HTTPException as error:
            _log.warning("appeal %d cannot be posted in its channel: code %d", appeal.appeal_id, error.code)

    async def _decide(self, interaction: discord.Interaction, button: Button) -> None:
        own = handles.tenant_of(interaction.guild_id, interaction.user.id)
        if not is_moderator(interaction) or tenant_of(button.job_id) != own:
            await whisper(interaction, appeals.NOT_A_MODERATOR)
            return
        await interaction.response.defer()
        moderator = str(interaction.user.id)
        approve = button.action == "approve"
        appeal = await self._desk.resolve(button.job_id, own, moderator, approve=approve)
        before = interaction.message.content if interaction.message is not None else ""
        decided = appeals.decided_in_words(appeal, interaction.user.mention)
        await interaction.edit_original_response(content=f"{before}\n{decided}", view=None)
        await self._desk.tell_outcomes(self.tell)

    async def tell(self, outcome: Outcome) -> bool:
        """Tell somebody the outcome by direct message; who takes none reads it by pressing Appeal again."""
        try:
            user = await self._client.fetch_user(int(json.loads(outcome.route)["user"]))
            await user.send(appeals.outcome_in_words(outcome.appeal), nonce=f"outcome-{outcome.appeal.appeal_id}")
        except (discord.Forbidden, discord.NotFound) as error:
            _log.info("the outcome of appeal %d cannot be told: code %d", outcome.appeal.appeal_id, error.code)
        except (discord.HTTPException, discord.RateLimited, OSError) as error:
            _log.warning("the outcome of appeal %d is told later: %s", outcome.appeal.appeal_id, type(error).__name__)
            return False
        return True

    def commands(self) -> app_commands.Group:
        """/moderation, for those who manage a guild's messages."""
        group = app_commands.Group(
            name="moderation",
            description="What was stopped here, and who objects.",
            guild_only=True,
            default_permissions=discord.Permissions(manage_messages=True),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
        )

        @group.command(name="appeals", description="Decide appeals that are waiting.")
        async def waiting(interaction: discord.Interaction) -> None:
            await interaction.response.defer(thinking=True, ephemeral=True)
            if not is_moderator(interaction):
                await whisper(interaction, appeals.NOT_A_MODERATOR)
                return
            try:
                await self._list(interaction)
            except (GenerationError, WorkersError) as error:
                await whisper(interaction, str(error))

        return group

    async def _list(self, interaction: discord.Interaction) -> None:
        found = await self._desk.open_ones(handles.tenant_of(interaction.guild_id, interaction.user.id))
        if not found:
            await whisper(interaction, appeals.NONE_OPEN)
        for appeal in found[:_SHOWN]:
            shown: Any = views.buttons(View("", buttons=appeals.buttons_for(appeal)))
            await interaction.followup.send(appeals.for_moderators(appeal), view=shown, ephemeral=True)
