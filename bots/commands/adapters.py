"""``palaver adapters``: the adapters that chat models have been tuned to, and which of them answer."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bots import log, settings, tuning
from generation.errors import AdapterError

if TYPE_CHECKING:
    from generation.tuning.store import AdapterStore, TunedAdapter

_JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")


@click.group("adapters")
def command() -> None:
    """List, promote, roll back and remove tuned adapters; running workers follow within seconds."""


@command.command("list")
@click.option("--tenant", help="Whose; all by default.")
@_JSON
def list_adapters(tenant: str | None, as_json: bool) -> None:
    """List adapters: who has which, how good it was on held-out answers, and whether a source was deleted since."""
    with _store() as store:
        for each in store.all_of(tenant):
            click.echo(json.dumps(_told(each), ensure_ascii=False) if as_json else _line(each))


@command.command("promote")
@click.argument("adapter_id")
@click.option("--force", is_flag=True, help="Even if it is not better.")
def promote(adapter_id: str, force: bool) -> None:
    """Have an adapter answer for its tenant, unless it was measured to be worse."""
    with _store() as store:
        adapter = store.get(adapter_id)
        reasons = adapter.report.get("reasons_against", [])
        if reasons and not force:
            raise AdapterError(f"{adapter_id} is not promoted: {'; '.join(reasons)}. --force does it all the same.")
        store.file(adapter_id)  # a broken one is told now
        store.promote(adapter_id)
    click.echo(f"{adapter_id} answers for {adapter.tenant} from now on.")


@command.command("rollback")
@click.option("--tenant", default="terminal", show_default=True, help="Whose.")
def rollback(tenant: str) -> None:
    """Have the adapter answer that did before, or the model alone."""
    with _store() as store:
        promoted = [each for each in store.all_of(tenant) if each.state == "promoted"]
        if not promoted:
            raise AdapterError(f"No adapter answers for {tenant}.")
        for each in promoted:
            before = store.rollback(tenant, each.identity)
            click.echo(f"{each.model}: {before.adapter_id if before else 'the model alone'} answers from now on.")


@command.command("rm")
@click.argument("adapter_ids", nargs=-1, required=True)
def remove(adapter_ids: tuple[str, ...]) -> None:
    """Remove adapters; where one answers, the model alone does from now on."""
    with _store() as store:
        for adapter_id in adapter_ids:
            store.get(adapter_id)
            store.remove(adapter_id)
            click.echo(f"{adapter_id} is removed.")


@contextmanager
def _store() -> Iterator[AdapterStore]:
    configured = settings.load()
    log.configure(configured.log_level)
    store = tuning.open_store(configured)
    try:
        yield store
    finally:
        store.close()


def _told(adapter: TunedAdapter) -> dict[str, object]:
    return {name: getattr(adapter, name) for name in adapter.__slots__}


def _line(adapter: TunedAdapter) -> str:
    before, after = (adapter.report.get(name, {}).get("perplexity", float("nan")) for name in ("before", "after"))
    made = time.strftime("%Y-%m-%d %H:%M", time.gmtime(adapter.made_s))
    stale = "  stale: something it learnt from was deleted; train again" if adapter.stale else ""
    return (
        f"{adapter.adapter_id}  {adapter.tenant}  {adapter.state:<9}  {adapter.model}  {made}  "
        f"perplexity {before:.2f} to {after:.2f}  {adapter.size_bytes / 1e6:.1f} MB{stale}"
    )
