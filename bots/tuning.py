"""What a tenant's chat model is tuned on, and what becomes of that when a source is deleted.

Sources are read anew for every training and never copied: what was deleted is in no set.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from bots.handover.opening import LateStore
from bots.settings import Settings
from generation.errors import AdapterError, GenerationError
from generation.tuning.place import is_there, store_url

if TYPE_CHECKING:
    from collections.abc import Collection

    from generation.tuning.examples import Example
    from generation.tuning.job import Job
    from generation.tuning.store import AdapterStore


class TuningFailedError(GenerationError):
    """The training process ended without an adapter; the message is its own."""

    code = "tuning"

    def __init__(self, message: str, exit_code: int = 70) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def draft_source(draft_id: str) -> str:
    """How an approved draft is called among the sources of an adapter."""
    return f"draft:{draft_id}"


def url_of(settings: Settings) -> str:
    """Where adapters lie."""
    return store_url(settings.knowledge.url, settings.data_dir)


def approved_dialogues(settings: Settings, tenant: str, persona: str) -> list[Example]:
    """Questions of a tenant's hand-overs with the answers that a moderator has approved.

    Args:
        settings: Where they lie.
        tenant: Whose.
        persona: The system text that the model is shown in service.
    """
    from generation.tuning.examples import example

    store = LateStore(settings)
    if not store.is_there:
        return []
    drafts = store.open().drafts(tenant, "approved")
    return [example(draft_source(each.draft_id), each.question, each.answer, persona) for each in drafts]


def deleted_sources(settings: Settings, tenant: str, adapter_id: str) -> set[str]:
    """Approved drafts that an adapter has learnt from and that are approved no more."""
    store = open_store(settings)
    try:
        learnt = {source for source in store.sources_of(adapter_id) if source.startswith(draft_source(""))}
    finally:
        store.close()
    return learnt - {each.source for each in approved_dialogues(settings, tenant, "")} if learnt else set()


def mark_stale(settings: Settings, tenant: str, source_ids: Collection[str]) -> list[str]:
    """Sources were deleted: adapters that were trained on them are trained anew by the next run; returns their ids."""
    if not source_ids or not is_there(url_of(settings)):
        return []
    store = open_store(settings)
    try:
        return store.mark_stale(tenant, source_ids)
    finally:
        store.close()


def broken_adapters(settings: Settings) -> tuple[int, dict[str, str]]:
    """How many adapters answer, and which of them cannot be read: id -> why.

    Raises:
        KnowledgeError: The store cannot be used.
    """
    if not is_there(url_of(settings)):
        return 0, {}
    store = open_store(settings)
    broken = {}
    try:
        promoted = [each.adapter_id for each in store.all_of() if each.state == "promoted"]
        for adapter_id in promoted:
            try:
                store.file(adapter_id)
            except AdapterError as error:
                broken[adapter_id] = str(error)
    finally:
        store.close()
    return len(promoted), broken


def open_store(settings: Settings) -> AdapterStore:
    """The store of adapters.

    Raises:
        KnowledgeError: It cannot be opened.
    """
    from generation.tuning.store import AdapterStore  # with SQLAlchemy, a third of a second

    settings.data_dir.mkdir(parents=True, exist_ok=True)
    return AdapterStore(url_of(settings))


def run(job: Job) -> dict[str, Any]:
    """Train in a process of its own, which shows its progress on standard error.

    Raises:
        TuningFailedError: It did not come to an end; the message says why.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "generation.tuning.run"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=os.environ
    )
    try:
        output, _ = process.communicate(job.to_json().encode())
    finally:
        if process.poll() is None:  # Ctrl-C has told it as well; its checkpoint is whole
            process.wait()
    lines = output.decode().strip().splitlines()
    if not lines:
        raise TuningFailedError("The training ended without a word. Run it again: it goes on from its last checkpoint.")
    outcome: dict[str, Any] = json.loads(lines[-1])
    if outcome["outcome"] == "failed":
        raise TuningFailedError(outcome["message"], outcome["exit_code"])
    return outcome
