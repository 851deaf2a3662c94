"""A folder or a site is kept in step: what is new or has changed there is read, and what is gone there is forgotten."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

from generation.errors import UnreadableDocumentError
from generation.retrieval.fetching import Fetcher, Page
from generation.retrieval.formats.reading import ENDINGS
from generation.retrieval.knowledge import TenantKnowledge, from_file
from generation.retrieval.site import pages_of
from generation.retrieval.types import Document, SyncReport, Upload

Change = Literal["added", "changed", "removed", "unchanged", "failed"]
#: What is found at a source: a document, nothing new, or why it cannot be had.
_Found = tuple[str, Upload | str | None]


def is_address(place: str) -> bool:
    """Whether a place is on the web rather than in the file system."""
    return place.lower().startswith(("http://", "https://"))


def collection_of(place: str) -> str:
    """The name of what is kept in step with a place."""
    return f"site:{place}" if is_address(place) else f"folder:{Path(place).expanduser().absolute()}"


def place_of(collection: str) -> str:
    """The place that a collection is kept in step with."""
    return collection.partition(":")[2]


def page_as_upload(page: Page) -> Upload:
    """A fetched page as a document."""
    return Upload(page.name, page.content, page.url, origin="site", etag=page.etag, modified=page.modified)


def sync(
    knowledge: TenantKnowledge,
    place: str,
    fetcher: Fetcher,
    *,
    dry_run: bool = False,
    tags: tuple[str, ...] | None = None,
    progress: Callable[[Change, str], None] = lambda *_: None,
) -> SyncReport:
    """Keep what a tenant knows in step with a folder or a site.

    Each document is changed by itself, so that what was interrupted goes on where it was.

    Args:
        knowledge: What the tenant knows.
        place: A folder, or the address of a site.
        fetcher: Fetches a site's pages.
        dry_run: Tell what would change, and change nothing.
        tags: What documents are filed under; by default what those of the place are filed under already.
        progress: Told each change and its source.

    Raises:
        UnreadableDocumentError: The place is not there at all.
    """
    collection = collection_of(place)
    known = {document.source: document for document in knowledge.list(collection)}
    if tags is None:
        tags = next((document.tags for document in known.values()), ())
    found = _pages(place, known, fetcher) if is_address(place) else _files(Path(place_of(collection)))
    counts: Counter[Change] = Counter()
    failed: list[tuple[str, str]] = []
    seen: set[str] = set()
    for source, upload in found:
        seen.add(source)
        change: Change
        if isinstance(upload, str):
            change, reason = "failed", upload
        else:
            tagged = upload and replace(upload, tags=tags)
            change, reason = _put(knowledge, source, tagged, known.get(source), collection, dry_run=dry_run)
        if change == "failed":
            failed.append((source, reason))
        counts[change] += 1
        progress(change, reason if change == "failed" else source)
    for source, document in known.items():
        if source not in seen:
            if not dry_run:
                knowledge.remove(document.document_id)
            counts["removed"] += 1
            progress("removed", source)
    return SyncReport(counts["added"], counts["changed"], counts["removed"], counts["unchanged"], tuple(failed))


def _put(
    knowledge: TenantKnowledge,
    source: str,
    upload: Upload | None,
    known: Document | None,
    collection: str,
    *,
    dry_run: bool,
) -> tuple[Change, str]:
    if upload is None or (
        known is not None and known.sha256 == hashlib.sha256(upload.content).hexdigest() and known.tags == upload.tags
    ):
        return "unchanged", ""
    if not dry_run:
        try:
            knowledge.put(source, upload, collection)
        except UnreadableDocumentError as error:
            return "failed", str(error)
    return ("added" if known is None else "changed"), ""


def _files(folder: Path) -> Iterator[_Found]:
    if not folder.is_dir():
        raise UnreadableDocumentError(f"{folder} is no folder.")
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in ENDINGS and path.is_file():
            try:
                yield from_file(path)
            except (UnreadableDocumentError, OSError) as error:
                yield str(path), f"{path.name}: {error}".removeprefix(f"{path.name}: {path.name}: ")


def _pages(start: str, known: dict[str, Document], fetcher: Fetcher) -> Iterator[_Found]:
    for page in pages_of(start, {document.address or "": document for document in known.values()}, fetcher):
        if isinstance(page, tuple):
            yield f"site:{page[0]}", page[1]
        elif page.state == "there":
            yield f"site:{page.url}", page_as_upload(page)
        elif page.state == "unchanged":
            yield f"site:{page.url}", None
