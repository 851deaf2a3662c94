"""/show: an earlier job again, in a message of its own."""

from __future__ import annotations

from dataclasses import replace

import discord

from bots.delivery import wording
from bots.delivery.content import View
from bots.delivery.ledger import Place
from bots.delivery.page import Page, image_buttons
from bots.delivery.surface import SurfaceError
from bots.discord_bot import handles, surfaces
from bots.discord_bot.desk import Desk, acknowledge, is_moderator, replace_with_notice
from bots.image_prompt import ImagePrompt
from workers.client import Ended, Queued
from workers.contract import tenant_of
from workers.errors import WorkersError

UNKNOWN = "There is no such job of yours on record. `/show` lists your latest ones as you type."


class Shows:
    """Shows jobs again.

    Args:
        desk: Where they are found.
        means: How they are shown.
    """

    def __init__(self, desk: Desk, means: surfaces.Means) -> None:
        self._desk = desk
        self._means = means

    async def show(self, interaction: discord.Interaction, job_id: str) -> None:
        """Show one job as it stands; its buttons work as under the first message."""
        message_id = await acknowledge(interaction, private=True)
        if message_id is None:
            return
        try:
            asked = await self._desk.records.find(job_id)
            if asked is None or not _may_see(interaction, asked):
                await replace_with_notice(interaction, UNKNOWN)
                return
            view = await self._view(job_id, asked)
            handle = replace(handles.of_interaction(interaction, private=True), message=message_id)
            await surfaces.open_surface(self._means, handle).post(view, Place(0, None, False, ""))
        except WorkersError as error:
            await replace_with_notice(interaction, wording.refusal(error))
        except SurfaceError:
            return  # nobody waits for it any more

    async def _view(self, job_id: str, asked: ImagePrompt) -> View:
        page = Page(job_id, surfaces.LIMIT_CHARS, len, asked)
        event = await self._desk.client.ended(job_id)
        if event is not None:
            page.take(Ended(event))
            page.pictures = await self._desk.dispatch.pictures(job_id, event)
            return page.views()[0]
        if await self._desk.client.known(job_id):
            position = await self._desk.client.position(job_id)
            if position is not None:
                page.take(Queued(position.ahead, position.eta_s))
            return page.views()[0]
        text = f"**{wording.shortened(asked.text, 600)}**\n{wording.PICTURES_GONE}"
        return View(text, buttons=image_buttons(job_id, 0), complete=True)


def _may_see(interaction: discord.Interaction, asked: ImagePrompt) -> bool:
    if asked.user == str(interaction.user.id):
        return True
    own = handles.tenant_of(interaction.guild_id, interaction.user.id)
    return is_moderator(interaction) and tenant_of(asked.job_id) == own and not asked.reply.handle.get("private")
