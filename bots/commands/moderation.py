"""``palaver moderation``: what was decided, appeals, and whether a policy is right."""

from __future__ import annotations

import asyncio
import getpass
import time
from pathlib import Path

import click

from bots import settings
from bots.connection import client_of
from bots.moderation import LateRecord
from bots.tenant_config import TenantConfigs
from generation.errors import InvalidRequestError
from generation.moderation.appeals import Appeal
from generation.moderation.policy import Policy
from generation.moderation.policy_file import read_policy
from generation.moderation.record import Record, Report

_DAY_S = 86_400.0


@click.group("moderation")
def command() -> None:
    """What moderation decided, users' appeals, and checking a tenant's policy."""


@command.command("report")
@click.option("--tenant", help="One guild or workspace; all by default.")
@click.option("--days", default=30.0, show_default=True, help="How far back.")
def report(tenant: str | None, days: float) -> None:
    """Counts and rates of decisions, and appeals."""
    record = _record()
    _show(record.report(tenant, time.time() - days * _DAY_S), days)


@command.command("appeals")
@click.option("--tenant", help="One guild or workspace; all by default.")
@click.option("--all", "everything", is_flag=True, help="Also those that have been answered.")
def appeals(tenant: str | None, everything: bool) -> None:
    """Appeals that wait for an answer."""
    waiting = _record().appeals(tenant, None if everything else "open")
    if not waiting:
        click.echo("No appeals.")
    for appeal in waiting:
        click.echo(_line(appeal))


@command.command("approve")
@click.argument("number", type=int)
def approve(number: int) -> None:
    """Answer an appeal: the refusal was a mistake."""
    click.echo(_line(_record().resolve(number, None, getpass.getuser(), approve=True)))


@command.command("deny")
@click.argument("number", type=int)
def deny(number: int) -> None:
    """Answer an appeal: the refusal stands."""
    click.echo(_line(_record().resolve(number, None, getpass.getuser(), approve=False)))


@command.command("check")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def check(file: Path) -> None:
    """See whether a policy file is right; a mistake is told with its line."""
    policy = read_policy(file.read_text("utf-8"), str(file))
    words = sum(len(words.words) + len(words.patterns) for words in policy.lists)
    shadow = ", in shadow mode" if policy.shadow else ""
    click.echo(f"{file} is right: {policy.strictness}{shadow}, {words} words and patterns.")


@command.command("set")
@click.argument("tenant")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
def set_policy(tenant: str, file: Path | None) -> None:
    """Give a guild or workspace the policy in a file; without one, the operator's default again."""
    policy = read_policy(file.read_text("utf-8"), str(file)) if file else None
    asyncio.run(_set(tenant, policy))
    click.echo(f"{tenant} has {'its own policy' if policy else 'the default policy'} from now on.")


async def _set(tenant: str, policy: Policy | None) -> None:
    async with client_of(settings.load()) as client:
        configs = TenantConfigs(client.connection)
        await configs.set(tenant, (await configs.of(tenant)).model_copy(update={"policy": policy}))


def _record() -> Record:
    record = LateRecord(settings.load()).open()
    if not isinstance(record, Record):
        raise InvalidRequestError('There is no record of decisions: moderation.record_url is "none".')
    return record


def _show(told: Report, days: float) -> None:
    click.echo(f"Last {days:g} days: {told.decisions:,} decisions on {told.jobs:,} requests;")
    click.echo(f"{told.stopped_jobs:,} requests were stopped ({told.stopped_share:.2%}).")
    found = [count for count in told.counts if count.category]
    if found:
        width = max(len(count.category) for count in found)
        for count in found:
            shadow = "  (shadow)" if count.shadow else ""
            click.echo(f"  {count.category:<{width}}  {count.action:<8}  {count.count:>8,}{shadow}")
    told_appeals = ", ".join(f"{count} {status}" for status, count in sorted(told.appeals.items()))
    click.echo(f"Appeals: {told_appeals or 'none'}.")


def _line(appeal: Appeal) -> str:
    day = time.strftime("%Y-%m-%d %H:%M", time.localtime(appeal.at_s))
    text = f"  {appeal.text!r}" if appeal.text else ""
    return f"{appeal.appeal_id}  {day}  {appeal.status}  {appeal.category}  {appeal.job_id}{text}"
