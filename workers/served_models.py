"""Which models can be asked for: what the workers that run now tell of themselves.

Prompts that name no model wait in the queue of their kind. A model that an operator runs beside the usual one has a
queue of its own, so a worker never meets a prompt for a model that it does not have, and none is passed over.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, cast

from workers import keys
from workers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis.asyncio

    from workers.contract import Kind

#: Workers report every few seconds; what one that has been silent for so long has told counts no more.
SILENT_S = 20.0
_LISTED = 10


def public_name(model: str) -> str | None:
    """What a configured model is called towards people: of a directory its name alone, for the rest is the operator's.

    Args:
        model: Catalogue name, hub id or directory, as configured; None comes back for nothing.
    """
    return (model.rstrip("/").rpartition("/")[2] if model.startswith(("/", "~", ".")) else model) or None


async def served_models(client: redis.asyncio.Redis, kind: Kind) -> dict[str, str]:
    """The models that may be asked for by name, those of the kind's own queue first.

    Args:
        client: Connected to the queue's server.
        kind: Of which kind.

    Returns:
        Queue by the model's name. Where workers of one queue run different models, none of those can be asked for:
        which of them answers is left to chance.
    """
    entries = cast("Mapping[bytes, bytes]", await client.hgetall(keys.workers()))
    by_queue: dict[str, set[str]] = {}
    for raw in entries.values():
        entry = json.loads(raw)
        model, queue = entry.get("model"), entry.get("queue")  # older releases tell neither
        if model and queue and entry["kind"] == kind and time.time() - entry["at_s"] <= SILENT_S:
            by_queue.setdefault(queue, set()).add(model)
    queues = sorted(by_queue.items(), key=lambda each: (each[0] != kind, each[0]))
    return {model: queue for queue, models in queues if len(models) == 1 for model in models}


async def queue_of(client: redis.asyncio.Redis, kind: Kind, model: str) -> str:
    """The queue whose workers run a model.

    Raises:
        RefusedError: Nobody runs it now; it says what runs.
    """
    served = await served_models(client, kind)
    if model not in served:
        raise RefusedError("model", math.inf, not_served(model, list(served)))
    return served[model]


def not_served(model: str, served: list[str]) -> str:
    """Why a model cannot be had, and which can."""
    there = f"There is {', '.join(served[:_LISTED])}." if served else "No worker is running now."
    name = " ".join(model.split())[:80]  # what somebody typed, in one line
    return f"The model {name} does not run here. {there}"
