"""``palaver knowledge``: the documents that a tenant's questions are answered from."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bots import log, settings
from bots.commands import learning
from generation.errors import GenerationError, UnreadableDocumentError

if TYPE_CHECKING:
    from generation.retrieval.knowledge import TenantKnowledge

_TENANT = click.option("--tenant", default="terminal", show_default=True, help="Whose.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")
_SHOWN_CHARS = 200


@click.group("knowledge")
def command() -> None:
    """Add, list, search and remove the documents that `palaver ask` and /ask quote.

    Searching and adding need the knowledge part: pip install 'palaver[knowledge]'.
    """


command.add_command(learning.drafts)
command.add_command(learning.report)


@command.command("add")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--address", metavar="URL", help="Where people can open the document, for one file.")
@_TENANT
@_JSON
def add(files: tuple[Path, ...], address: str | None, tenant: str, as_json: bool) -> int:
    """Add FILES, or all documents of folders; what was added before and has changed is replaced.

    A file that cannot be read is told in one line and leaves nothing behind; the others are added, and the exit code
    is 65.
    """
    from generation.retrieval.types import Upload

    found = list(_documents(files))
    failed = 0
    with _knowledge(tenant) as knowledge:
        for number, file in enumerate(found, 1):
            try:
                source = Upload(file.name, file.read_bytes(), address) if address else file
                document = knowledge.add(source)
            except UnreadableDocumentError as error:
                failed += 1
                click.echo(f"palaver: {error}", err=True)
                continue
            told = {"document_id": document.document_id, "title": document.title, "passages": document.chunks}
            line = f"[{number}/{len(found)}] {document.document_id}  {document.title}  {document.chunks} passages"
            click.echo(json.dumps(told, ensure_ascii=False) if as_json else line)
    return UnreadableDocumentError.exit_code if failed else 0


@command.command("list")
@_TENANT
@_JSON
def list_documents(tenant: str, as_json: bool) -> None:
    """List what is known."""
    with _knowledge(tenant) as knowledge:
        for document in knowledge.list():
            told = {
                "document_id": document.document_id,
                "title": document.title,
                "source": document.source,
                "passages": document.chunks,
                "language": document.language,
                "approved_by": document.approved_by,
            }
            line = f"{document.document_id}  {document.title}  {document.chunks} passages"
            click.echo(json.dumps(told, ensure_ascii=False) if as_json else line)


@command.command("remove")
@click.argument("document_ids", nargs=-1, required=True)
@_TENANT
def remove(document_ids: tuple[str, ...], tenant: str) -> int:
    """Remove documents by their ids, from store and index: the next answer knows nothing of them."""
    missing = 0
    with _knowledge(tenant) as knowledge:
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
@_TENANT
@_JSON
def search(query: tuple[str, ...], limit: int, tenant: str, as_json: bool) -> None:
    """Show the passages that most probably answer a QUERY, best first."""
    with _knowledge(tenant) as knowledge:
        for hit in knowledge.search(" ".join(query), limit):
            if as_json:
                told = {name: getattr(hit, name) for name in hit.__slots__}
                click.echo(json.dumps(told, ensure_ascii=False))
                continue
            place = " › ".join([hit.title, *hit.heading_path])
            text = " ".join(hit.text.split())
            click.echo(f"{hit.score:.2f}  {place}\n      {text[:_SHOWN_CHARS]}")


def _documents(paths: Sequence[Path]) -> Iterator[Path]:
    """Files as named, and of folders those of a known format."""
    from generation.retrieval.formats.reading import ENDINGS

    for path in paths:
        if path.is_dir():
            yield from sorted(file for file in path.rglob("*") if file.suffix.lower() in ENDINGS and file.is_file())
        else:
            yield path


@contextmanager
def _knowledge(tenant: str) -> Iterator[TenantKnowledge]:
    configured = settings.load()
    log.configure(configured.log_level)
    try:
        from generation.retrieval.embedding import load_embedder
        from generation.retrieval.knowledge import Knowledge, default_url
    except ModuleNotFoundError as error:
        raise GenerationError("Documents need another part: pip install 'palaver[knowledge]'.") from error
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    url = configured.knowledge.url or default_url(configured.data_dir)
    knowledge = Knowledge(url, load_embedder(configured.knowledge.model))
    try:
        yield knowledge.tenant(tenant)
    finally:
        knowledge.close()
