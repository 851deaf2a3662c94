"""Presses of buttons and the form to edit a prompt: what they mean is in their id, whoever posted them and when."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import discord

from bots.delivery.buttons import PREFIX, Button, parse
from bots.discord_bot import handles
from bots.discord_bot.appeals import GuildAppeals
from bots.discord_bot.desk import Desk, is_moderator, whisper
from bots.discord_bot.support import SupportDesk, is_support
from bots.discord_bot.views import form_answer, prompt_form
from bots.image_actions import Asker, again
from bots.image_prompt import ImagePrompt
from bots.service import Prompt
from generation.errors import GenerationError
from workers.contract import ReplyTo, tenant_of
from workers.errors import JobNotFoundError, WorkersError

UNKNOWN = "This button is not known here any more."
EXPIRED = "What was asked here is no longer on record. Please ask again with /imagine."
NOT_YOURS = "Only the person who asked, or a moderator, can do that."
ENDED = "It has ended already."
_REDIS_LIMIT_S = 2.0

_log = logging.getLogger("palaver.discord")


class Presses:
    """Acts on buttons.

    Args:
        desk: What to act with.
        appeals: What is done about refusals.
        support: What is done in hand-overs.
    """

    def __init__(self, desk: Desk, appeals: GuildAppeals, support: SupportDesk) -> None:
        self._desk = desk
        self._appeals = appeals
        self._support = support

    async def on_interaction(self, interaction: discord.Interaction) -> None:
        """Act on a press or a form of ours; others' are none of our business."""
        if interaction.type not in (discord.InteractionType.component, discord.InteractionType.modal_submit):
            return
        custom_id = interaction.custom_id or ""
        if not custom_id.startswith(PREFIX):
            return
        button = parse(custom_id)
        try:
            if button is None:
                await whisper(interaction, UNKNOWN)
            elif is_support(button):
                await self._support.pressed(interaction, button)
            else:
                await self._act(interaction, button)
        except (WorkersError, GenerationError) as error:
            await whisper(interaction, str(error))
        except discord.HTTPException as error:
            _log.info("a press on %s cannot be answered: code %d", button.action if button else "?", error.code)

    async def _act(self, interaction: discord.Interaction, button: Button) -> None:
        if button.action == "stop":
            await self._stop(interaction, button)
        elif button.action == "delete":
            await self._delete(interaction, button)
        elif button.action == "prompt":
            await self._tell_prompt(interaction, button)
        elif button.action == "edit" and interaction.type is discord.InteractionType.component:
            await self._edit(interaction, button)
        else:
            await self._ask(interaction, button)

    async def _stop(self, interaction: discord.Interaction, button: Button) -> None:
        await interaction.response.defer()
        try:
            outcome = await self._desk.service.stop(
                button.job_id, str(interaction.user.id), moderator=_may_moderate(interaction, button)
            )
        except JobNotFoundError:
            outcome = "ended"
        if outcome == "ended":
            await whisper(interaction, ENDED)

    async def _delete(self, interaction: discord.Interaction, button: Button) -> None:
        await interaction.response.defer()
        asked = await self._desk.records.find(button.job_id)
        user, moderator = str(interaction.user.id), _may_moderate(interaction, button)
        if not moderator and (asked is None or asked.user != user):
            await whisper(interaction, NOT_YOURS if asked else EXPIRED)
            return
        await self._desk.delete_pictures(button.job_id)
        await self._desk.records.forget(button.job_id)
        await interaction.delete_original_response()

    async def _tell_prompt(self, interaction: discord.Interaction, button: Button) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        asked = await self._desk.records.find(button.job_id)
        if asked is None:
            await whisper(interaction, EXPIRED)
            return
        quoted = asked.text.replace("```", "'''")
        without = f"\nNot: {asked.negative_text}" if asked.negative_text else ""
        options = asked.options
        facts = f"seed {options.seed}, {options.n} x {options.aspect_ratio}"
        await whisper(interaction, f"```\n{quoted[:1_500]}{without[:200]}\n```{facts}")

    async def _edit(self, interaction: discord.Interaction, button: Button) -> None:
        # A form must be the first answer: there is no time for a slow server.
        asked = None
        with contextlib.suppress(TimeoutError):
            asked = await asyncio.wait_for(self._desk.records.find(button.job_id), _REDIS_LIMIT_S)
        if asked is None:
            await whisper(interaction, EXPIRED)
        else:
            await interaction.response.send_modal(prompt_form(button, asked.text))

    async def _ask(self, interaction: discord.Interaction, button: Button) -> None:
        """What leads to something new: an appeal, a smaller request, other pictures."""
        if button.action in ("appeal", "approve", "deny"):
            await self._appeals.pressed(interaction, button)
        elif button.action == "smaller":
            await self._take_smaller(interaction, button)
        else:
            await self._draw(interaction, button)

    async def _take_smaller(self, interaction: discord.Interaction, button: Button) -> None:
        async def prompt(reply: ReplyTo) -> Prompt | ImagePrompt:
            return await self._desk.offers.take(button.job_id, str(interaction.user.id), f"i{interaction.id}", reply)

        await self._desk.take(interaction, prompt)

    async def _draw(self, interaction: discord.Interaction, button: Button) -> None:
        text = form_answer(interaction) if button.action == "edit" else None

        async def prompt(reply: ReplyTo) -> ImagePrompt:
            asked = await self._desk.records.find(button.job_id)
            if asked is None:
                raise JobNotFoundError(EXPIRED)
            asker = Asker(
                tenant=handles.tenant_of(interaction.guild_id, interaction.user.id),
                channel=str(interaction.channel_id),
                user=str(interaction.user.id),
                key=f"i{interaction.id}",
                reply=reply,
            )
            return again(asked, button, asker, text)

        private = interaction.message is not None and interaction.message.flags.ephemeral
        await self._desk.take(interaction, prompt, private)


def _may_moderate(interaction: discord.Interaction, button: Button) -> bool:
    """Whether the user is a moderator of the guild whose job it is."""
    own = handles.tenant_of(interaction.guild_id, interaction.user.id)
    return is_moderator(interaction) and tenant_of(button.job_id) == own
