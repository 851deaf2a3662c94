"""``palaver knowledge``: the documents that a tenant's questions are answered from."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bots import settings
from bots.commands import calibrating, learning, templates
from bots.commands.opened import JSON, TENANT, opened, opened_store
from generation.errors import UnreadableDocumentError

if TYPE_CHECKING:
    from generation.retrieval.fetching import Fetcher
    from generation.retrieval.types import Upload

_TAGS = click.option("--tag", "tags", multiple=True, metavar="NAME", help="File it under; can be repeated.")
_SHOWN_CHARS = 200
#: Whoever asks a question meanwhile goes first.
_NICENESS = 10


@click.group("knowledge")
def command() -> None:
    """Add, list, search and remove the documents that `palaver ask` and /ask quote.

    Searching and adding need the knowledge part: pip install 'palaver[knowledge]'.
    """


command.add_command(learning.drafts)
command.add_command(learning.report)
command.add_command(calibrating.command)
command.add_command(templates.command)


@command.command("add")
@click.argument("sources", nargs=-1, required=True)
@click.option("--address", metavar="URL", help="Where people can open the document, for one file.")
@_TAGS
@TENANT
@JSON
def add(sources: tuple[str, ...], address: str | None, tags: tuple[str, ...], tenant: str, as_json: bool) -> int:
    """Add SOURCES: files, all documents of folders, or pages by their addresses; what has changed is replaced.

    A document that cannot be read is told in one line and leaves nothing behind; the others are added, and the exit
    code is 65. After an interruption, the same command goes on where it was.
    """
    failed = 0
    os.nice(_NICENESS)
    with opened(tenant) as knowledge, _fetcher() as fetcher:
        found = list(_documents(sources))
        for number, source in enumerate(found, 1):
            try:
                document = knowledge.add(_upload(source, address, fetcher), tags)
            except UnreadableDocumentError as error:
                failed += 1
                click.echo(f"palaver: {error}", err=True)
                continue
            told = {"document_id": document.document_id, "title": document.title, "passages": document.chunks}
            line = f"[{number}/{len(found)}] {document.document_id}  {document.title}  {document.chunks} passages"
            click.echo(json.dumps(told, ensure_ascii=False) if as_json else line)
    return UnreadableDocumentError.exit_code if failed else 0


@command.command("sync")
@click.argument("places", nargs=-1)
@click.option("--dry-run", is_flag=True, help="Tell what would change, and change nothing.")
@_TAGS
@TENANT
@JSON
def sync_places(places: tuple[str, ...], dry_run: bool, tags: tuple[str, ...], tenant: str, as_json: bool) -> int:
    """Keep PLACES in step: folders, or sites by their addresses. Without any, all that were kept in step before.

    What is new or has changed there is read, what is gone there is forgotten. Of a site all pages below the address are
    read that its robots.txt allows. Run it from cron or a timer. The exit code is 65 if something could not be read.
    """
    from generation.retrieval.syncing import place_of, sync

    failed = 0
    os.nice(_NICENESS)
    with opened(tenant) as knowledge, _fetcher() as fetcher:
        kept = sorted({document.collection for document in knowledge.list() if document.collection})
        for place in places or map(place_of, kept):
            report = sync(
                knowledge, place, fetcher, dry_run=dry_run, tags=tags or None,
                progress=lambda change, what: _told(change, what, as_json=as_json),
            )  # fmt: skip
            failed += len(report.failed)
            counts = {name: getattr(report, name) for name in ("added", "changed", "removed", "unchanged")}
            counts["failed"] = len(report.failed)
            line = f"{place}: " + ", ".join(f"{count} {name}" for name, count in counts.items())
            told = {"place": place, "dry_run": dry_run} | counts
            click.echo(json.dumps(told, ensure_ascii=False) if as_json else line)
    return UnreadableDocumentError.exit_code if failed else 0


def _told(change: str, what: str, *, as_json: bool) -> None:
    """One line a document that is not as it was."""
    if change == "failed":
        click.echo(f"palaver: {what}", err=True)
    elif change != "unchanged" and not as_json:
        click.echo(f"{change:9} {what}")


@command.command("list")
@TENANT
@JSON
def list_documents(tenant: str, as_json: bool) -> None:
    """List what is known."""
    with opened(tenant) as knowledge:
        for document in knowledge.list():
            told = {
                "document_id": document.document_id,
                "title": document.title,
                "source": document.source,
                "passages": document.chunks,
                "language": document.language,
                "tags": document.tags,
                "collection": document.collection,
                "approved_by": document.approved_by,
            }
            line = f"{document.document_id}  {document.title}  {document.chunks} passages"
            click.echo(json.dumps(told, ensure_ascii=False) if as_json else line)


@command.command("remove")
@click.argument("document_ids", nargs=-1, required=True)
@TENANT
def remove(document_ids: tuple[str, ...], tenant: str) -> int:
    """Remove documents by their ids, from store and index: the next answer knows nothing of them."""
    missing = 0
    with opened(tenant) as knowledge:
        for document_id in document_ids:
            if knowledge.remove(document_id):
                click.echo(f"{document_id} is removed.")
            else:
                missing += 1
                click.echo(f"palaver: there is no document {document_id}.", err=True)
    return 66 if missing else 0


@command.command("search")
@click.argument("query", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 100), default=5, show_default=True, help="Most passages.")
@click.option("--language", "languages", multiple=True, metavar="CODE", help="Passages in it only, such as zh.")
@click.option("--source", "sources", multiple=True, metavar="START", help="Sources that begin so only; see `list`.")
@click.option("--tag", "tags", multiple=True, metavar="NAME", help="Documents under all of these tags only.")
@TENANT
@JSON
def search(
    query: tuple[str, ...],
    limit: int,
    languages: tuple[str, ...],
    sources: tuple[str, ...],
    tags: tuple[str, ...],
    tenant: str,
    as_json: bool,
) -> None:
    """Show the passages that most probably answer a QUERY, best first.

    With --json, each has its document's id, title and address, the headings above it, its anchor, page, language, text
    and score.
    """
    from generation.retrieval.types import Filters

    with opened(tenant, searching=True) as knowledge:
        for hit in knowledge.search(" ".join(query), limit, Filters(languages, (), sources, tags)):
            if as_json:
                told = {name: getattr(hit, name) for name in hit.__slots__}
                click.echo(json.dumps(told, ensure_ascii=False))
                continue
            place = " › ".join([hit.title, *hit.heading_path])
            text = " ".join(hit.text.split())
            click.echo(f"{hit.score:.2f}  {place}\n      {text[:_SHOWN_CHARS]}")


@command.command("reembed")
@click.argument("model")
def reembed(model: str) -> None:
    """Search everything, of all tenants, with another embedding MODEL: `use-v3`, one of the hub, or a directory.

    Its vectors are made beside the old ones, which are searched meanwhile; after an interruption, the same command goes
    on where it was.
    """
    from generation.retrieval.embedding import load_embedder

    os.nice(_NICENESS)
    with opened_store(searching=False) as knowledge:
        embedder = load_embedder(model)
        changed = knowledge.reembed(embedder, lambda done, total: click.echo(f"[{done}/{total}] documents"))
    said = "Everything is searched with" if changed else "Everything was searched already with"
    click.echo(f"{said} {embedder.name}. Set knowledge.model to it for new stores.")


def _documents(sources: Sequence[str]) -> Iterator[str]:
    """Sources as named, and of folders the documents of a known format."""
    from generation.retrieval.formats.reading import ENDINGS

    for source in sources:
        path = Path(source)
        if path.is_dir():
            files = sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
            yield from map(str, files)
        else:
            yield source


def _upload(source: str, address: str | None, fetcher: Fetcher) -> Upload | Path:
    from generation.retrieval.knowledge import from_file
    from generation.retrieval.syncing import is_address, page_as_upload

    if is_address(source):
        page = fetcher.get(source.partition("#")[0])
        if page.state != "there":
            raise UnreadableDocumentError(f"{source}: there is no document that can be read.")
        return page_as_upload(page)
    if address is None:
        return Path(source)
    _, upload = from_file(Path(source))
    return replace(upload, address=address, origin="upload")


@contextmanager
def _fetcher() -> Iterator[Fetcher]:
    from generation.retrieval.fetching import Fetcher

    fetcher = Fetcher(settings.load().knowledge.networks)
    try:
        yield fetcher
    finally:
        fetcher.close()
