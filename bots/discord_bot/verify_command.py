"""/verify, and the same in a message's menu: where a picture came from, for the eyes of whoever asks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import discord
from discord import app_commands

from bots.discord_bot.attachments import Attachments
from bots.discord_bot.desk import whisper
from bots.verification import MOST_PICTURES, NO_PICTURE, Verifier
from workers.errors import WorkersError

MENU_NAME = "Where is this from?"


def commands(
    verifier: Verifier, attachments: Attachments
) -> tuple[app_commands.Command[Any, ..., Any], app_commands.ContextMenu]:
    """The command and the entry of a message's menu.

    Args:
        verifier: Looks at pictures.
        attachments: Fetches them, within the limits that hold for all files.
    """

    async def tell(interaction: discord.Interaction, files: Sequence[discord.Attachment]) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        pictures = [each for each in files if (each.content_type or "").startswith("image/")] or list(files)
        if not pictures:
            await whisper(interaction, NO_PICTURE)
            return
        told = []
        for each in pictures[:MOST_PICTURES]:
            try:
                lines = await verifier.told(await attachments.picture(each))
            except WorkersError as error:
                lines = [str(error)]
            told.append(f"**{discord.utils.escape_markdown(each.filename[:60])}**: " + "\n".join(lines))
        await whisper(interaction, "\n".join(told))

    @app_commands.command(name="verify", description="See whether a picture was generated here.")
    @app_commands.describe(file="The picture.")
    async def verify(interaction: discord.Interaction, file: discord.Attachment) -> None:
        await tell(interaction, [file])

    async def menu(interaction: discord.Interaction, message: discord.Message) -> None:
        await tell(interaction, message.attachments)

    return verify, app_commands.ContextMenu(name=MENU_NAME, callback=menu)
