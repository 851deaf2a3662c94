"""``palaver backup`` and ``palaver restore``: what is kept, as one file."""

from __future__ import annotations

from pathlib import Path

import click

from bots import archive, log, settings
from workers import embedded_redis, redis_connection


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
def backup(file: Path) -> None:
    """Write what is kept to FILE while everything goes on: conversations, tenants' settings, accounts, records.

    Jobs in flight are not in it, and pictures neither. It holds what people wrote and the data directory's keys: keep
    it as safe as the server.
    """
    configured = settings.load()
    log.configure("error")
    with redis_connection.connect(configured.redis, configured.data_dir) as client:
        with redis_connection.mapped_errors(client):
            client.ping()
        written = archive.write(client, configured.data_dir, file)
    click.echo(f"{file}: {written.keys} keys, files: {', '.join(written.files) or 'none'}.")


@click.command("restore")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--replace", is_flag=True, help="Replace keys and files that exist; otherwise they stay as they are.")
def restore(file: Path, replace: bool) -> None:
    """Read FILE back in; stop workers and front-ends first."""
    configured = settings.load()
    log.configure("error")
    if configured.redis.url is None:
        with embedded_redis.ensure(configured.data_dir, configured.redis):
            _restore(configured, file, replace)
    else:
        _restore(configured, file, replace)


def _restore(configured: settings.Settings, file: Path, replace: bool) -> None:
    with redis_connection.connect(configured.redis, configured.data_dir) as client:
        redis_connection.check(client)
        read = archive.read(client, configured.data_dir, file, replace=replace)
    click.echo(f"{file}: restored {read.keys} keys, files: {', '.join(read.files) or 'none'}.")
