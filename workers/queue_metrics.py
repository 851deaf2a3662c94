"""What the server knows, read when somebody scrapes: queues, the oldest that waits, workers, and Redis' own state.

Supervisors and front-ends export it alike, so that it can be seen while either is down: take the ``max`` over them.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Any, cast, get_args

import redis
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from rq import Queue
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text

from workers import keys
from workers.contract import Kind
from workers.fair_queue import FairQueue
from workers.metrics import REGISTRY
from workers.served_models import SILENT_S

#: Lanes whose head is looked at for the oldest job that waits.
_LANES_LOOKED_AT = 64

log = logging.getLogger("palaver.metrics")


def queues_of(client: redis.Redis, kind: Kind) -> list[str]:
    """The queues of a kind: its own, and those of further models that have ever had a job."""
    known = (
        as_text(key).removeprefix(Queue.redis_queue_namespace_prefix)
        for key in client.smembers(Queue.redis_queues_keys)
    )
    return sorted({keys.queue(kind), *(name for name in known if keys.kind_of(name) == kind)})


def oldest_wait_s(client: redis.Redis, queue: str) -> float:
    """Seconds that the oldest job has waited, of the heads of the lanes that are served next; 0 if none waits."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zrange(keys.fair(queue, "ring"), 0, _LANES_LOOKED_AT - 1)
        pipeline.zrange(keys.fair(queue, "capped"), 0, _LANES_LOOKED_AT - 1)
        pipeline.lindex(Queue.redis_queue_namespace_prefix + queue, 0)
        ring, capped, inbox = pipeline.execute()
    with client.pipeline(transaction=False) as pipeline:
        for tenant in (*ring, *capped):
            pipeline.lindex(keys.fair(queue, "lane:" + as_text(tenant)), 0)
        heads = [as_text(head) for head in (*pipeline.execute(), inbox) if head]
    with client.pipeline(transaction=False) as pipeline:
        for job_id in heads:
            pipeline.hget(Job.key_for(job_id), "enqueued_at")
        since = [_unix_s(as_text(at)) for at in pipeline.execute() if at]
    return max(0.0, time.time() - min(since)) if since else 0.0


def _unix_s(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


class ServerCollector(Collector):
    """Reads the server at each scrape; where it is away, that is all it says.

    Args:
        client: Connected to the queue's server.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._client = client

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Called by the registry."""
        up = GaugeMetricFamily("palaver_redis_up", "Whether Redis answers.")
        try:
            families = [*self._queues(), *self._workers(), *self._server()]
        except (redis.RedisError, OSError) as error:
            log.info("the queues cannot be read: %s", type(error).__name__)
            up.add_metric([], 0)
            yield up
            return
        up.add_metric([], 1)
        yield up
        yield from families

    def _queues(self) -> Iterable[GaugeMetricFamily]:
        depth = GaugeMetricFamily("palaver_queue_jobs", "Jobs that wait.", labels=["kind"])
        oldest = GaugeMetricFamily("palaver_queue_oldest_seconds", "Wait of the oldest job so far.", labels=["kind"])
        for kind in get_args(Kind):
            names = queues_of(self._client, kind)
            queues = [FairQueue(name, connection=self._client, serializer=JSONSerializer) for name in names]
            depth.add_metric([kind], sum(queue.count for queue in queues))
            oldest.add_metric([kind], max(oldest_wait_s(self._client, name) for name in names))
        return depth, oldest

    def _workers(self) -> Iterable[GaugeMetricFamily]:
        workers = GaugeMetricFamily(
            "palaver_workers", "Workers that report, by whether they take jobs.", labels=["kind", "state"]
        )
        counts: dict[tuple[str, str] | None, int] = {
            (kind, state): 0 for kind in get_args(Kind) for state in ("ready", "starting")
        }
        for raw in cast("dict[bytes, bytes]", self._client.hgetall(keys.workers())).values():
            label = _label(raw)
            if label in counts:
                counts[label] += 1
        for label, count in counts.items():
            workers.add_metric(list(label or ()), count)
        return (workers,)

    def _server(self) -> Iterable[GaugeMetricFamily]:
        info: dict[str, Any] = self._client.info("memory")
        used = GaugeMetricFamily("palaver_redis_memory_bytes", "What Redis uses.")
        used.add_metric([], info["used_memory"])
        most = GaugeMetricFamily(
            "palaver_redis_maxmemory_bytes", "What it may use: maxmemory, else the machine's memory."
        )
        most.add_metric([], info.get("maxmemory") or info.get("total_system_memory") or 0)
        rejected = GaugeMetricFamily("palaver_rejected_jobs", "Payloads that were refused and are kept for inspection.")
        rejected.add_metric([], self._client.llen(keys.rejected()))
        return used, most, rejected


def _label(raw: bytes) -> tuple[str, str] | None:
    """Kind and state of a worker that reports; None if it is silent, or another program wrote the entry."""
    try:
        entry = json.loads(raw)
        silent = time.time() - entry["at_s"] > SILENT_S
        return None if silent else (str(entry["kind"]), "ready" if entry["engine"] else "starting")
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def export(client: redis.Redis) -> None:
    """Have this process tell what the server knows."""
    REGISTRY.register(ServerCollector(client))
