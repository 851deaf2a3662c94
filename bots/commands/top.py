"""``palaver top``: queues, workers, slots, tenants and throughput, as they change."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from bots import log, settings
from bots.activity import Activity, activity
from workers import redis_connection

if TYPE_CHECKING:
    import redis
    from rich.console import Group

_TENANTS_SHOWN = 12


@click.command("top")
@click.option("--once", is_flag=True, help="Show one moment, its rates taken over one interval, and end.")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object a moment; with --once a single one.")
@click.option("--interval-s", default=1.0, show_default=True, type=click.FloatRange(0.1, 60), help="Between two looks.")
def command(once: bool, as_json: bool, interval_s: float) -> None:
    """Show queues, workers, slots, tenants and throughput, live."""
    configured = settings.load()
    log.configure(configured.log_level)
    with redis_connection.connect(configured.redis, configured.data_dir) as client:
        redis_connection.check(client)
        with redis_connection.mapped_errors(client):
            moments = _moments(client, configured.redis.url is None, interval_s)
            if as_json:
                for moment in moments:
                    click.echo(json.dumps(asdict(moment)))
                    if once:
                        return
            _show(moments, once)


def _moments(client: redis.Redis, embedded: bool, interval_s: float) -> Iterator[Activity]:
    before = activity(client, embedded)
    while True:
        time.sleep(interval_s)
        before = activity(client, embedded, before)
        yield before


def _show(moments: Iterator[Activity], once: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    if once or not console.is_terminal:
        console.print(view(next(moments)))
        return
    with Live(view(next(moments)), console=console, screen=True, auto_refresh=False) as live:
        for moment in moments:
            live.update(view(moment), refresh=True)


def view(moment: Activity) -> Group:
    """A moment as tables."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    server = moment.server
    queues = Table("queue", "waiting", "oldest", "running", "slots", "answers/s", box=box.SIMPLE_HEAD)
    for queue in moment.queues:
        own = [worker for worker in moment.workers if worker.kind == queue.kind]
        running, slots = sum(worker.in_flight for worker in own), sum(_slots(worker.engine) for worker in own)
        rate = moment.jobs_per_s.get(queue.kind, 0.0)
        oldest = f"{moment.oldest_s[queue.kind]:.0f} s"
        queues.add_row(queue.kind, str(queue.queued), oldest, str(running), str(slots), f"{rate:.2f}")
    workers = Table("worker", "kind", "state", "model", "device", "running", "answered", box=box.SIMPLE_HEAD)
    for worker in moment.workers:
        engine = worker.engine or {}
        model, device = str(engine.get("model", "")), str(engine.get("device", ""))
        running_of = f"{worker.in_flight}/{_slots(worker.engine)}"
        answered = str(moment.answered.get(worker.name, 0))
        workers.add_row(worker.name, worker.kind, worker.state, model, device, running_of, answered)
    tenants = Table("tenant", "running", "waiting", box=box.SIMPLE_HEAD)
    for tenant in moment.tenants[:_TENANTS_SHOWN]:
        tenants.add_row(tenant.tenant, str(tenant.running), str(tenant.queued))
    more = len(moment.tenants) - _TENANTS_SHOWN
    if more > 0:
        tenants.add_row(f"and {more} more", "", "")
    title = f"{server.version}, {server.memory_bytes / 2**20:.1f} MiB, {time.strftime('%H:%M:%S')}"
    return Group(title, queues, workers, tenants)


def _slots(engine: dict[str, object] | None) -> int:
    return int(str(engine.get("capacity", 0))) if engine else 0
