"""/knowledge: what this server's questions are answered from; for those who may manage the server."""

from __future__ import annotations

import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path, PurePosixPath

import discord
from discord import app_commands

from bots import knowledge_process
from bots.answers import inert
from bots.discord_bot import handles
from bots.discord_bot.attachments import Attachments
from bots.discord_bot.desk import whisper
from workers.errors import WorkersError

_NOT_ALLOWED = "Only those who may manage this server can change what I know."
_NOTHING = "Nothing is known here yet: add a document with `/knowledge add`."
_LISTED = 25


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

    @knowledge.command(name="add", description="Add a document: Markdown, HTML or text.")
    @app_commands.describe(file="The document.", address="Where people can open it; answers link there.")
    async def add(
        interaction: discord.Interaction, file: discord.Attachment, address: app_commands.Range[str, 0, 500] = ""
    ) -> None:
        await _answer(interaction, lambda: _added(interaction, attachments, file, address))

    @knowledge.command(name="list", description="List what is known.")
    async def list_documents(interaction: discord.Interaction) -> None:
        await _answer(interaction, lambda: _listed(interaction))

    @knowledge.command(name="remove", description="Remove a document.")
    @app_commands.describe(document="Its id, from /knowledge list.")
    async def remove(interaction: discord.Interaction, document: app_commands.Range[str, 1, 40]) -> None:
        await _answer(interaction, lambda: _removed(interaction, document))

    return knowledge


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


async def _added(
    interaction: discord.Interaction, attachments: Attachments, file: discord.Attachment, address: str
) -> str:
    data = await attachments.document(file)
    with tempfile.TemporaryDirectory(prefix="palaver") as directory:
        path = Path(directory) / (PurePosixPath(file.filename.replace("\\", "/")).name or "document")
        path.write_bytes(data)
        # Without an address of its own it is the uploaded file's: a place on this machine can be opened by nobody.
        where = address or file.url.partition("?")[0]
        (added,) = await knowledge_process.run("add", str(path), "--address", where, "--json", *_tenant(interaction))
    return f"Added: {_line(added)}"


async def _listed(interaction: discord.Interaction) -> str:
    found = await knowledge_process.run("list", "--json", *_tenant(interaction))
    more = f"\nand {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    return "\n".join(map(_line, found[:_LISTED])) + more if found else _NOTHING


async def _removed(interaction: discord.Interaction, document: str) -> str:
    await knowledge_process.run("remove", *_tenant(interaction), "--", document)
    return "Removed: the next answer knows nothing of it."


def _tenant(interaction: discord.Interaction) -> list[str]:
    return ["--tenant", handles.tenant_of(interaction.guild_id, interaction.user.id)]


def _line(document: dict[str, object]) -> str:
    return f"`{document.get('document_id')}` {inert(str(document.get('title')))}, {document.get('passages')} passages"
