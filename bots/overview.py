"""What runs and what waits, as status pages and starting commands need it."""

from __future__ import annotations

import json
import os
import socket
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any, cast

import redis
from rq.serializers import JSONSerializer

from workers import keys
from workers.contract import tenant_of
from workers.fair_queue import FairQueue

#: Workers report every few seconds; one that has been silent for so long is not counted.
_SILENT_S = 20.0


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """One running worker.

    Attributes:
        name: Of the worker.
        kind: Whose jobs it takes.
        host: Where it runs.
        pid: Its process there.
        engine: The fields of ``generation.types.EngineInfo``; None while the model loads.
        progress: What it is doing until then, in words.
        in_flight: Jobs it is working on.
    """

    name: str
    kind: str
    host: str
    pid: int
    engine: dict[str, Any] | None
    progress: str
    in_flight: int

    @property
    def ready(self) -> bool:
        """Whether it takes jobs."""
        return self.engine is not None

    @property
    def state(self) -> str:
        """In a few words."""
        return "ready" if self.engine else self.progress or "starting"


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue of one kind.

    Attributes:
        kind: Which.
        queued: Jobs that wait.
        tenants: How many of them each tenant has; the longest first.
    """

    kind: str
    queued: int
    tenants: dict[str, int]


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """The server of the queues.

    Attributes:
        embedded: Whether it is the product's own.
        version: Of Redis or Valkey.
        uptime_s: Since its start.
        memory_bytes: What its data takes.
        durable: Whether it keeps an append-only file.
    """

    embedded: bool
    version: str
    uptime_s: int
    memory_bytes: int
    durable: bool


def server_of(client: redis.Redis, embedded: bool) -> ServerStatus:
    """The server that a client is connected to."""
    info: dict[str, Any] = client.info("all")
    name, version = ("Valkey", info["valkey_version"]) if "valkey_version" in info else ("Redis", info["redis_version"])
    return ServerStatus(
        embedded, f"{name} {version}", info["uptime_in_seconds"], info["used_memory"], bool(info["aof_enabled"])
    )


def queue_of(client: redis.Redis, kind: str) -> QueueStatus:
    """What waits for workers of a kind."""
    queue = FairQueue(keys.queue(kind), connection=client, serializer=JSONSerializer)
    waiting = Counter(tenant_of(job_id) for job_id in queue.get_job_ids())
    return QueueStatus(kind, waiting.total(), dict(waiting.most_common()))


def workers_of(client: redis.Redis, kind: str | None = None) -> list[WorkerStatus]:
    """The workers that run now.

    Args:
        client: Connected to the queue's server.
        kind: Of one kind only.

    Returns:
        Workers by name; those that are gone from this machine or silent are left out.
    """
    entries = cast(dict[bytes, bytes], client.hgetall(keys.workers()))
    read = [_worker(name.decode(errors="replace"), raw) for name, raw in sorted(entries.items())]
    return [worker for worker in read if worker is not None and kind in (None, worker.kind)]


def _worker(name: str, raw: bytes) -> WorkerStatus | None:
    """A worker's entry; None if it does not run, or another release or program wrote it."""
    try:
        entry = json.loads(raw)
        if not _runs(entry):
            return None
        return WorkerStatus(
            name,
            str(entry["kind"]),
            str(entry["host"]),
            int(entry["pid"]),
            entry["engine"],
            entry["progress"],
            int(entry["in_flight"]),
        )
    except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return None


def holds_slot(client: redis.Redis, kind: str, job_id: str) -> bool:
    """Whether a job counts as running: taken by a worker and not given up since."""
    return bool(client.hexists(keys.fair(keys.queue(kind), "running"), job_id))


def _runs(entry: dict[str, Any]) -> bool:
    if time.time() - entry["at_s"] > _SILENT_S:
        return False
    if entry["host"] != socket.gethostname():
        return True
    try:
        os.kill(entry["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
