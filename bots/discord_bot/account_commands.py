"""/usage and /privacy: what somebody has used, and what is kept about somebody; for that person's eyes only."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import discord
from discord import app_commands

from bots.discord_bot import handles
from bots.discord_bot.desk import whence, whisper
from bots.privacy import Privacy
from bots.tenant_rules import TenantRules
from workers.client import Client
from workers.usage import Account, Period

_DELETED = (
    "Deleted: {turns} messages with their answers, {records} image prompts. What was posted in channels stays there "
    "until it is deleted in Discord."
)


def usage(client: Client, rules: TenantRules) -> app_commands.Command[Any, ..., Any]:
    """/usage."""

    @app_commands.command(name="usage", description="Show what you have used, and what is left.")
    async def show(interaction: discord.Interaction) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        tenant = handles.tenant_of(interaction.guild_id, interaction.user.id)
        quota = await rules.quota(tenant, whence(interaction).roles)
        found = await client.usage(tenant, str(interaction.user.id), quota)
        parts = [*_lines("You", found.user)]
        if interaction.guild_id is not None:
            parts += _lines("This server", found.tenant)
        await whisper(interaction, "\n".join(parts))

    return show


def privacy(kept: Privacy) -> app_commands.Group:
    """/privacy export and /privacy delete, for all guilds and direct messages."""
    both = app_commands.Group(name="privacy", description="What is kept about you.")

    @both.command(name="export", description="Get everything that is kept about you, as a file.")
    async def export(interaction: discord.Interaction) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        data = await kept.export(handles.PLATFORM, None, str(interaction.user.id))
        text, name = json.dumps(data, ensure_ascii=False, indent=1).encode(), "palaver-export.json"
        if len(text) > interaction.filesize_limit:
            text, name = gzip.compress(text), f"{name}.gz"
        await interaction.followup.send(
            "This is everything that is kept about you.",
            file=discord.File(io.BytesIO(text), name),
            ephemeral=True,
        )

    @both.command(name="delete", description="Delete everything that is kept about you. This cannot be undone.")
    async def delete(interaction: discord.Interaction) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        deleted = await kept.delete(handles.PLATFORM, None, str(interaction.user.id))
        await whisper(interaction, _DELETED.format(turns=deleted.turns, records=deleted.records))

    return both


def _lines(owner: str, account: Account) -> list[str]:
    return [f"**{owner}**", f"Today: {_line(account.day)}", f"This month: {_line(account.month)}"]


def _line(period: Period) -> str:
    kinds = {"chat": "answers", "image": "image jobs"}
    parts = [
        f"{spent.jobs} {kinds.get(kind, kind)} ({spent.gpu_s:.1f} GPU-seconds)"
        for kind, spent in sorted(period.by_kind.items())
    ]
    left = f"; {period.left_gpu_s:.0f} GPU-seconds left" if period.budget_gpu_s is not None else ""
    return (", ".join(parts) or "nothing") + left
