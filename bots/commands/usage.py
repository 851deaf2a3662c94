"""``palaver usage``: what a tenant and a user have used, and what their budgets have left."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any, Literal

import click

from bots import log, settings
from bots.connection import client_of
from bots.terminal.session import FRONT_END, local_user
from workers import redis_connection
from workers.usage import Account, Period, Usage, top_up


@click.command("usage")
@click.option("--tenant", default=FRONT_END, show_default=True, help="Whose account: a guild or workspace.")
@click.option("--user", default=None, help="And which user's within it.  [default: you]")
@click.option("--top-up", "top_up_gpu_s", type=float, help="Raise the budget by so many GPU-seconds, once.")
@click.option("--period", type=click.Choice(["day", "month"]), default="day", help="Whose budget --top-up raises.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for scripts.")
def command(
    tenant: str, user: str | None, top_up_gpu_s: float | None, period: Literal["day", "month"], as_json: bool
) -> None:
    """Show what a tenant and a user have used, and what is left; with --top-up give more.

    Without --user a top-up is the tenant's. It holds at once, until the day or the month ends.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    if top_up_gpu_s is not None:
        asyncio.run(_top_up(configured, tenant, user, top_up_gpu_s, period))
    user = user or local_user()
    found = asyncio.run(_read(configured, tenant, user))
    if as_json:
        accounts = {"tenant": found.tenant, "user": found.user}
        click.echo(json.dumps({whose: _plain(account) for whose, account in accounts.items()}))
    else:
        click.echo("\n".join([*lines(f"tenant {tenant}", found.tenant), *lines(f"user {user}", found.user)]))


async def _top_up(
    configured: settings.Settings, tenant: str, user: str | None, gpu_s: float, period: Literal["day", "month"]
) -> None:
    async with client_of(configured) as client:
        with redis_connection.mapped_errors(client.connection):
            await top_up(client.connection, tenant, user, gpu_s, period)


async def _read(configured: settings.Settings, tenant: str, user: str) -> Usage:
    async with client_of(configured) as client:
        with redis_connection.mapped_errors(client.connection):
            return await client.usage(tenant, user)


def lines(owner: str, account: Account) -> list[str]:
    """An account in words: a line for the day and one for the month."""
    return [f"{owner}: {_line(account.day)}", f"{' ' * len(owner)}  {_line(account.month)}"]


def _line(period: Period) -> str:
    kinds = [f"{spent.jobs} {kind} ({spent.gpu_s:.1f} s)" for kind, spent in sorted(period.by_kind.items())]
    parts = [", ".join(kinds) or "nothing used"]
    if period.reserved_gpu_s:
        parts.append(f"{period.reserved_gpu_s:.1f} s reserved")
    if period.budget_gpu_s is not None:
        parts.append(f"{period.left_gpu_s:.1f} of {period.budget_gpu_s:g} GPU-seconds left")
    return f"{period.name}: {'; '.join(parts)}"


def _plain(account: Account) -> dict[str, Any]:
    return {
        name: {
            "period": period.name,
            "jobs": {kind: spent.jobs for kind, spent in period.by_kind.items()},
            "gpu_s": {kind: spent.gpu_s for kind, spent in period.by_kind.items()},
            "reserved_gpu_s": period.reserved_gpu_s,
            "budget_gpu_s": period.budget_gpu_s,
            "left_gpu_s": None if math.isinf(period.left_gpu_s) else period.left_gpu_s,
        }
        for name, period in (("day", account.day), ("month", account.month))
    }
