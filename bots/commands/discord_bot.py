"""``palaver discord``: the Discord front-end."""

from __future__ import annotations

import asyncio
import contextlib

import click

from bots import log, settings
from bots.exported import exported
from workers import embedded_redis, redis_connection
from workers.errors import SettingsError
from workers.process_tree import die_with_parent


@click.command("discord")
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
def command(parent: int | None) -> None:
    """Run the Discord front-end until stopped.

    DISCORD_TOKEN says which bot it is; docs/discord.md shows how to get one and how to invite the bot.
    """
    configured = settings.load()
    log.configure(configured.log_level, configured.log_format)
    if configured.discord.token is None:
        raise SettingsError("DISCORD_TOKEN is not set. docs/discord.md shows how to get one.")
    if parent is not None:
        die_with_parent(parent)
    try:
        from bots.discord_bot.serve import serve
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "discord"):
            raise
        raise SettingsError("The Discord front-end is not installed: pip install 'palaver[discord]'.") from None
    with contextlib.ExitStack() as stack:
        if configured.redis.url is None:
            stack.enter_context(embedded_redis.ensure(configured.data_dir, configured.redis))
        with redis_connection.connect(configured.redis, configured.data_dir) as client:
            redis_connection.check(client)
        stack.enter_context(exported(configured, "discord"))
        asyncio.run(serve(configured))
