"""/ask: a question to what this server has been told, answered with its sources."""

from __future__ import annotations

from typing import Any

import discord
from discord import app_commands

from bots import answers
from bots.discord_bot import handles
from bots.discord_bot.desk import Desk, whisper
from bots.discord_bot.support import SupportDesk
from bots.handover.wording import HANDED_ON
from bots.service import Prompt
from workers.contract import ReplyTo


def ask(desk: Desk, support: SupportDesk) -> app_commands.Command[Any, ..., Any]:
    """The command.

    Args:
        desk: Where prompts go.
        support: Hears first whether a person is wanted.
    """

    @app_commands.command(name="ask", description="Ask what this server's documents say.")
    @app_commands.describe(question="What you want to know.", private="Only you see the answer.")
    async def command(
        interaction: discord.Interaction, question: app_commands.Range[str, 1, 2000], private: bool = False
    ) -> None:
        if await support.asked(interaction, question):
            await whisper(interaction, HANDED_ON)
            return

        async def make(reply: ReplyTo) -> Prompt:
            prompt = Prompt(
                platform=handles.PLATFORM,
                tenant=handles.tenant_of(interaction.guild_id, interaction.user.id),
                channel=str(interaction.channel_id),
                user=str(interaction.user.id),
                conversation=str(interaction.channel_id),
                key=f"i{interaction.id}",
                text=question,
                reply=reply,
            )
            return answers.answering(prompt)

        await desk.take(interaction, make, private)

    return command
