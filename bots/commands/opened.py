"""The knowledge that a command works on, and the options that say whose and how."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from bots import log, settings
from generation.errors import GenerationError

if TYPE_CHECKING:
    from generation.retrieval.knowledge import TenantKnowledge

TENANT = click.option("--tenant", default="terminal", show_default=True, help="Whose.")
JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")


@contextmanager
def opened(tenant: str) -> Iterator[TenantKnowledge]:
    """What a tenant knows, with the model that is configured.

    Raises:
        GenerationError: The part that knowledge needs is not installed.
    """
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
