"""``palaver status``: server, queues, workers and who waits."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from bots import log, settings
from bots.overview import QueueStatus, ServerStatus, WorkerStatus, queue_of, server_of, workers_of
from bots.up_lock import running_pid
from bots.up_wants import KINDS
from workers import redis_connection

_TENANTS_SHOWN = 10


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object, for scripts.")
def command(as_json: bool) -> None:
    """Show server, queues, workers and who waits."""
    configured = settings.load()
    log.configure(configured.log_level)
    with redis_connection.connect(configured.redis, configured.data_dir) as client:
        redis_connection.check(client)
        with redis_connection.mapped_errors(client):
            server = server_of(client, embedded=configured.redis.url is None)
            queues = [queue_of(client, kind) for kind in KINDS]
            workers = workers_of(client)
    pid = running_pid(configured.data_dir)
    if as_json:
        found = {
            "server": asdict(server),
            "up_pid": pid,
            "queues": [asdict(queue) for queue in queues],
            "workers": [{**asdict(worker), "ready": worker.ready} for worker in workers],
        }
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(_lines(server, pid, queues, workers)))


def _lines(server: ServerStatus, pid: int | None, queues: list[QueueStatus], workers: list[WorkerStatus]) -> list[str]:
    kind = "embedded" if server.embedded else "external"
    durable = "" if server.durable else ", NOT durable: it keeps no append-only file"
    lines = [
        f"server   {server.version} ({kind}), up {server.uptime_s} s, {server.memory_bytes / 2**20:.1f} MiB{durable}",
        f"up       process {pid}" if pid else "up       not running here",
    ]
    for queue in queues:
        lines.append(f"queue    {queue.kind}: {queue.queued} waiting")
        shown = list(queue.tenants.items())[:_TENANTS_SHOWN]
        lines += [f"         {tenant}: {count}" for tenant, count in shown]
        if len(queue.tenants) > len(shown):
            lines.append(f"         and {len(queue.tenants) - len(shown)} more tenants")
    for worker in workers:
        engine = worker.engine or {}
        runs = "{model} on {device}, {dtype}, {capacity} slots".format(**engine) if engine else worker.state
        lines.append(f"worker   {worker.kind}: {runs}; {worker.in_flight} in flight ({worker.host}, {worker.pid})")
    return lines if workers else [*lines, "worker   none; start one with `palaver up`"]
