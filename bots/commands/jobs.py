"""``palaver jobs``: look at one job, stop it, run it again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict

import click
import redis

from bots import job_records, log, settings
from bots.connection import client_of
from bots.settings import Settings
from workers import redis_connection
from workers.client import CancelOutcome

_OUTCOMES: dict[CancelOutcome, str] = {
    "cancelled": "It waited and will not run.",
    "stopping": "It runs; its worker was told to stop it.",
    "ended": "It had ended already.",
}


@click.group("jobs")
def command() -> None:
    """Look at a job, stop it, run it again. Ids are in the logs; contents are never shown."""


@command.command("show")
@click.argument("job_id")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for scripts.")
def show(job_id: str, as_json: bool) -> None:
    """Show where a job stands, and what became of it."""
    with _connected() as (_, client):
        record = asdict(job_records.record_of(client, job_id))
    if as_json:
        click.echo(json.dumps(record))
        return
    known = {name: value for name, value in record.items() if value is not None}
    click.echo("\n".join(f"{name:<14}{value}" for name, value in known.items()))


@command.command("cancel")
@click.argument("job_ids", nargs=-1, required=True)
def cancel(job_ids: tuple[str, ...]) -> None:
    """Stop jobs, queued or running, whoever asked for them; their users are told."""
    with _connected() as (configured, _):
        for job_id, outcome in asyncio.run(_cancel(configured, job_ids)):
            click.echo(f"{job_id}: {_OUTCOMES[outcome]}")


@command.command("requeue")
@click.argument("job_ids", nargs=-1, required=True)
def requeue(job_ids: tuple[str, ...]) -> None:
    """Run jobs again that failed or were cancelled; their users get the answer, and no limit is charged."""
    with _connected() as (_, client):
        for job_id in job_ids:
            job_records.requeue(client, job_id)
            click.echo(f"{job_id}: queued again.")


@contextlib.contextmanager
def _connected() -> Iterator[tuple[Settings, redis.Redis]]:
    configured = settings.load()
    log.configure(configured.log_level, configured.log_format)
    with redis_connection.connect(configured.redis, configured.data_dir) as client:
        redis_connection.check(client)
        with redis_connection.mapped_errors(client):
            yield configured, client


async def _cancel(configured: Settings, job_ids: tuple[str, ...]) -> list[tuple[str, CancelOutcome]]:
    async with client_of(configured) as client:
        return [(job_id, await client.cancel(job_id, user="", moderator=True)) for job_id in job_ids]
