"""The knowledge that a command works on, and the options that say whose and how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bots import log, settings
from generation.errors import GenerationError

if TYPE_CHECKING:
    from generation.retrieval.knowledge import Knowledge, TenantKnowledge

TENANT = click.option("--tenant", default="terminal", show_default=True, help="Whose.")
JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")


@contextmanager
def opened(tenant: str, *, searching: bool = False) -> Iterator[TenantKnowledge]:
    """What a tenant knows.

    Args:
        tenant: Whose.
        searching: Whether questions are asked, so that the reranker is needed.
    """
    with opened_store(searching=searching) as knowledge:
        yield knowledge.tenant(tenant)


@contextmanager
def opened_store(*, searching: bool) -> Iterator[Knowledge]:
    """Everything that is known, with the models that are configured.

    Raises:
        GenerationError: The part that knowledge needs is not installed.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    try:
        from generation.retrieval.embedding import load_embedder
        from generation.retrieval.knowledge import Knowledge, default_url
        from generation.retrieval.reranking import load_reranker
    except ModuleNotFoundError as error:
        raise GenerationError("Documents need another part: pip install 'palaver[knowledge]'.") from error
    configured.data_dir.mkdir(parents=True, exist_ok=True)
    url = configured.knowledge.url or default_url(configured.data_dir)
    reranker = load_reranker(configured.knowledge.reranker) if searching else None
    knowledge = Knowledge(url, load_embedder(configured.knowledge.model), reranker=reranker)
    try:
        yield knowledge
    finally:
        knowledge.close()
