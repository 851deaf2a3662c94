"""``palaver models``: the catalogue, and what of it is on this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from rich.progress import Progress

    from bots.settings import Settings
    from generation.catalog import Manifest, PullProgress


_ROOMY_COLUMNS = 120


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of the list."""

    name: str
    source: str
    repo: str
    revision: str
    licence: str
    languages: tuple[str, ...]
    download_bytes: int
    memory_bytes: int
    summary: str
    installed: bool
    fits: bool | None
    configured: bool
    kind: str = "chat"


@click.group(name="models")
def command() -> None:
    """List, pull, verify and remove models."""


@command.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print a JSON list for scripts.")
def list_models(as_json: bool) -> None:
    """Show the catalogue and every other model that was pulled."""
    rows = _rows(_settings())
    if as_json:
        click.echo(json.dumps([asdict(row) for row in rows], indent=1))
        return
    _print_table(rows)


@command.command()
@click.argument("name", required=False)
def pull(name: str | None) -> None:
    """Download a model: a name of the list, or org/name[@revision] of the hub; without one, the configured model."""
    from generation import catalog

    settings = _settings()
    with _bar() as progress:
        task = progress.add_task("looking", total=None)

        def show(moment: PullProgress) -> None:
            total = moment.total_bytes or None
            progress.update(task, description=moment.stage, completed=moment.done_bytes, total=total)

        allow_pickle = settings.chat.allow_pickle
        location = catalog.pull(name or settings.chat.model, settings.data_dir, show, allow_pickle=allow_pickle)
    click.echo(f"{location.name} is in {location.directory}")


@command.command()
@click.argument("name", required=False)
def verify(name: str | None) -> None:
    """Read every byte of a pulled model and compare its hashes; without a name, of the configured model."""
    from generation import catalog

    settings = _settings()
    with _bar() as progress:
        task = progress.add_task("verifying", total=None)
        record = catalog.verify(
            name or settings.chat.model, settings.data_dir, lambda size_bytes: progress.advance(task, size_bytes)
        )
    click.echo(f"{record.name} is whole: {len(record.files)} files, {_size(record.size_bytes)}")


@command.command()
@click.argument("name")
def rm(name: str) -> None:
    """Delete a pulled model from this machine."""
    from generation import catalog

    freed = catalog.remove(name, _settings().data_dir)
    click.echo(f"{name} is gone: {_size(freed)} freed")


def _settings() -> Settings:
    from bots.settings import load

    return load()


def _rows(settings: Settings) -> list[_Row]:
    """The catalogue, then what else is installed."""
    from generation import catalog, devices

    room = max(devices.gpu_memory_bytes(), devices.free_memory_bytes())
    records = {record.name: record for record in catalog.installed(settings.data_dir)}
    configured = {"chat": settings.chat.model, "image": settings.image.model}
    rows = []
    for entry in catalog.entries():
        described = {field.name: getattr(entry, field.name) for field in fields(entry)}
        here = records.pop(entry.name, None) is not None
        chosen = entry.name == configured[entry.kind].lower()
        rows.append(_Row(**described, installed=here, fits=entry.memory_bytes <= room, configured=chosen))
    rows += [_pulled_by_name(record, set(configured.values())) for record in records.values()]
    return rows


def _pulled_by_name(record: Manifest, configured: set[str]) -> _Row:
    return _Row(
        record.name,
        record.source,
        record.repo,
        record.revision,
        licence="",
        languages=(),
        download_bytes=record.size_bytes,
        memory_bytes=0,
        summary="Pulled by name.",
        installed=True,
        fits=None,
        configured=record.name in configured,
        kind="?",
    )


def _print_table(rows: list[_Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(box=None, pad_edge=False)
    for heading in ("model", "makes", "size", "languages", "licence", "installed", "fits"):
        table.add_column(heading, justify="right" if heading == "size" else "left", no_wrap=True)
    roomy = console.width >= _ROOMY_COLUMNS
    if roomy:
        table.add_column("for")
    for row in rows:
        fits = "?" if row.fits is None else "yes" if row.fits else "no"
        name = f"{row.name} *" if row.configured else row.name
        cells = (
            name,
            row.kind,
            _size(row.download_bytes),
            _some(row.languages),
            row.licence,
            "yes" if row.installed else "",
            fits,
        )
        table.add_row(*cells, *([row.summary] if roomy else []))
    console.print(table)
    click.echo("* is configured; fits: into this machine's free memory. Any other hub model works as org/name or")
    click.echo("org/name@revision, any directory by its path.")


def _some(languages: tuple[str, ...]) -> str:
    """The first languages, and how many more."""
    more = len(languages) - 2
    return " ".join(languages[:2]) + (f" +{more}" if more > 0 else "")


@contextmanager
def _bar() -> Iterator[Progress]:
    """A progress bar with bytes on standard error; the last line of its terminal is its own."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TextColumn, TransferSpeedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    console = Console(stderr=True)
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _size(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB" if size_bytes >= 10**9 else f"{size_bytes / 1e6:.0f} MB"
