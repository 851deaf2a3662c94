"""/config: what a guild's administrators decide, for the whole guild and at once."""

from __future__ import annotations

from typing import Any

import discord
from discord import app_commands

from bots.discord_bot import handles
from bots.discord_bot.desk import whisper
from bots.tenant_config import TenantConfig, TenantConfigs
from bots.tenant_rules import TenantRules
from workers.errors import WorkersError

_MEANINGS = {
    "persona": "who the model is",
    "model": "which chat model",
    "languages": "languages of answers",
    "max_answer_tokens": "longest answer",
    "user_per_minute": "prompts a minute of one user",
    "channels": "channels in which I answer",
    "roles": "roles that I answer",
    "moderation": "relaxed, balanced or strict",
    "images": "pictures, on or off",
    "appeals_channel": "where moderators read appeals",
    "user_day_gpu_s": "GPU-seconds of one user a day",
    "user_month_gpu_s": "and a month",
    "tiers": "tiers of roles, such as @helpers=staff",
    "threads": "answer mentions in threads, on or off",
    "support_channels": "channels in which mentions are answered from documents",
    "team_channel": "channel in which people take over from me",
    "handover_topics": "what only people answer, with commas between",
    "working_hours": "when people are there: Mon-Fri 09:00-17:00 Europe/Berlin",
}
#: What the others take is for the administrator to write.
_KNOWN = {
    "images": ("on", "off"),
    "threads": ("on", "off"),
    "moderation": ("relaxed", "balanced", "strict"),
}
_SHOWN_CHARS = 120
_NOT_ALLOWED = "Only those who may manage this server can configure me."


def group(configs: TenantConfigs, rules: TenantRules) -> app_commands.Group:
    """The command with its parts.

    Args:
        configs: Where it is kept.
        rules: Know what the operator allows.
    """
    config = app_commands.Group(
        name="config",
        description="Configure me for this server.",
        allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=False, private_channel=False),
        default_permissions=discord.Permissions(manage_guild=True),
        allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
    )
    choices = [app_commands.Choice(name=f"{name}: {meaning}", value=name) for name, meaning in _MEANINGS.items()]

    async def change(interaction: discord.Interaction, setting: str, value: str | None) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        tenant = handles.tenant_of(interaction.guild_id, interaction.user.id)
        # What Discord shows to administrators only can be called by others where they were given the command.
        if interaction.guild_id is None or not interaction.permissions.manage_guild:
            await whisper(interaction, _NOT_ALLOWED)
            return
        try:
            changed = await configs.change(tenant, setting, value, await rules.ceilings())
        except WorkersError as error:
            await whisper(interaction, str(error))
            return
        await whisper(interaction, f"From now on: {_line(changed, setting)}")

    @config.command(name="set", description="Change a setting.")
    @app_commands.describe(setting="Which one.", value="Its new value.")
    @app_commands.choices(setting=choices)
    async def set_(interaction: discord.Interaction, setting: str, value: app_commands.Range[str, 1, 3000]) -> None:
        await change(interaction, setting, value)

    @set_.autocomplete("value")
    async def values(interaction: discord.Interaction, typed: str) -> list[app_commands.Choice[str]]:
        setting = getattr(interaction.namespace, "setting", "")
        known = (await rules.ceilings()).models if setting == "model" else _KNOWN.get(setting, ())
        return [
            app_commands.Choice(name=each[:100], value=each[:100]) for each in known if typed.lower() in each.lower()
        ][:25]

    @config.command(name="reset", description="Leave a setting to the operator again.")
    @app_commands.describe(setting="Which one.")
    @app_commands.choices(setting=choices)
    async def reset(interaction: discord.Interaction, setting: str) -> None:
        await change(interaction, setting, None)

    @config.command(name="show", description="Show all settings.")
    async def show(interaction: discord.Interaction) -> None:
        await interaction.response.defer(thinking=True, ephemeral=True)
        if not interaction.permissions.manage_guild:
            await whisper(interaction, _NOT_ALLOWED)
            return
        found = await configs.of(handles.tenant_of(interaction.guild_id, interaction.user.id))
        await whisper(interaction, "\n".join(_line(found, name) for name in _MEANINGS))

    return config


def _line(config: TenantConfig, name: str) -> str:
    value: Any = getattr(config, name)
    if name in ("appeals_channel", "team_channel") and value:
        value = f"<#{value}>"
    if name in ("channels", "roles", "support_channels"):
        value = " ".join(f"<#{each}>" if name != "roles" else f"<@&{each}>" for each in value)
    elif isinstance(value, dict):
        value = " ".join(f"<@&{role}>={tier}" for role, tier in value.items())
    elif isinstance(value, tuple):
        value = ", ".join(value)
    elif isinstance(value, bool):
        value = "on" if value else "off"
    shown = str(value)[:_SHOWN_CHARS] if value not in ("", None) else "(as the operator has it)"
    return f"**{name}**: {shown}"
