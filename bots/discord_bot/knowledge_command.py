"""/knowledge: what this server's questions are answered from; for those who may manage the server."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable

import discord
from discord import app_commands

from bots import knowledge_desk
from bots.discord_bot import handles
from bots.discord_bot.attachments import Attachments
from bots.discord_bot.desk import whisper
from workers.errors import WorkersError

_NOT_ALLOWED = "Only those who may manage this server can change what I know."
_WHAT = "Say what to add: a file, or an address. A message is added by its menu: Apps, *Add to knowledge*."
_MOST_MESSAGES = 100
MENU_NAME = "Add to knowledge"


def group(attachments: Attachments) -> app_commands.Group:
    """The command with its parts.

    Args:
        attachments: Fetches documents.
    """
    knowledge = app_commands.Group(
        name="knowledge",
        description="What /ask answers from.",
        guild_only=True,
        default_permissions=discord.Permissions(manage_guild=True),
        allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
    )

    @knowledge.command(name="add", description="Add a document, or a page by its address.")
    @app_commands.describe(
        file="The document: Markdown, HTML, text, PDF, DOCX or CSV.",
        address="Where people can open it; without a file, the page to add.",
    )
    async def add(
        interaction: discord.Interaction,
        file: discord.Attachment | None = None,
        address: app_commands.Range[str, 0, 500] = "",
    ) -> None:
        await _answer(interaction, lambda: _added(interaction, attachments, file, address))

    @knowledge.command(name="list", description="List what is known.")
    async def list_documents(interaction: discord.Interaction) -> None:
        await _answer(interaction, lambda: knowledge_desk.listed(_tenant(interaction)))

    @knowledge.command(name="remove", description="Remove a document.")
    @app_commands.describe(document="Its id, from /knowledge list.")
    async def remove(interaction: discord.Interaction, document: app_commands.Range[str, 1, 40]) -> None:
        await _answer(interaction, lambda: knowledge_desk.remove(_tenant(interaction), document))

    return knowledge


def menu() -> app_commands.ContextMenu:
    """The entry of a message's menu that adds it, with its thread."""

    async def add(interaction: discord.Interaction, message: discord.Message) -> None:
        await _answer(interaction, lambda: _pinned(interaction, message))

    made = app_commands.ContextMenu(
        name=MENU_NAME, callback=add, allowed_installs=app_commands.AppInstallationType(guild=True, user=False)
    )
    made.default_permissions = discord.Permissions(manage_guild=True)
    made.guild_only = True
    return made


async def _answer(interaction: discord.Interaction, work: Callable[[], Awaitable[str]]) -> None:
    """Do something for an administrator, and tell the outcome to nobody else."""
    await interaction.response.defer(thinking=True, ephemeral=True)
    # What Discord shows to administrators only can be called by others where they were given the command.
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        await whisper(interaction, _NOT_ALLOWED)
        return
    try:
        await whisper(interaction, await work())
    except WorkersError as error:
        await whisper(interaction, str(error))


async def _pinned(interaction: discord.Interaction, message: discord.Message) -> str:
    """A message, with the thread below it if there is one that can be read."""
    texts = [message.content]
    thread = message.thread or (message.channel if isinstance(message.channel, discord.Thread) else None)
    if thread is not None and (thread.id == message.id or message.thread is not None):
        with contextlib.suppress(discord.HTTPException):
            texts += [each.content async for each in thread.history(limit=_MOST_MESSAGES, oldest_first=True)]
    return await knowledge_desk.add_messages(_tenant(interaction), texts, message.jump_url)


async def _added(
    interaction: discord.Interaction, attachments: Attachments, file: discord.Attachment | None, address: str
) -> str:
    if file is None:
        return await knowledge_desk.add_address(_tenant(interaction), address.strip()) if address else _WHAT
    data = await attachments.document(file)
    # Without an address of its own it is the uploaded file's: a place on this machine can be opened by nobody.
    where = address or file.url.partition("?")[0]
    return await knowledge_desk.add_file(_tenant(interaction), file.filename, data, where)


def _tenant(interaction: discord.Interaction) -> str:
    return handles.tenant_of(interaction.guild_id, interaction.user.id)
