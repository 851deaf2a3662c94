"""``palaver slack``: the Slack front-end."""

from __future__ import annotations

import asyncio
import contextlib

import click

from bots import log, settings
from bots.exported import exported
from workers import embedded_redis, redis_connection
from workers.errors import SettingsError
from workers.process_tree import die_with_parent


@click.command("slack")
@click.option("--http", is_flag=True, help="Listen for signed requests instead of opening a socket (Socket Mode).")
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
def command(http: bool, parent: int | None) -> None:
    """Run the Slack front-end until stopped.

    SLACK_BOT_TOKEN says which workspace it serves; Socket Mode needs SLACK_APP_TOKEN as well, --http
    SLACK_SIGNING_SECRET. docs/slack.md shows how to get them.
    """
    configured = settings.load()
    log.configure(configured.log_level, configured.log_format)
    configured.slack.check(http)
    if parent is not None:
        die_with_parent(parent)
    try:
        from bots.slack_bot.serve import serve
    except ModuleNotFoundError as error:
        if error.name not in ("aiohttp", "slack_bolt", "slack_sdk"):
            raise
        raise SettingsError("The Slack front-end is not installed: pip install 'palaver[slack]'.") from None
    with contextlib.ExitStack() as stack:
        if configured.redis.url is None:
            stack.enter_context(embedded_redis.ensure(configured.data_dir, configured.redis))
        with redis_connection.connect(configured.redis, configured.data_dir) as client:
            redis_connection.check(client)
        stack.enter_context(exported(configured, "slack"))
        asyncio.run(serve(configured, http))
