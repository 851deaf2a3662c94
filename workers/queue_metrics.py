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
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text

from workers import keys
from workers.contract import Kind
from workers.fair_queue import FairQueue
from workers.metrics import REGISTRY

#: Lanes whose head is looked at for the oldest job that waits.
_LANES_LOOKED_AT = 64
#: Workers report every few seconds; one that has been silent for so long is not counted.
_SILENT_S = 20.0

log = logging.getLogger("palaver.metrics")


def oldest_wait_s(client: redis.Redis, kind: str) -> float:
    """Seconds that the oldest job has waited, of the heads of the lanes that are served next; 0 if none waits."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.zrange(keys.fair(keys.queue(kind), "ring"), 0, _LANES_LOOKED_AT - 1)
        pipeline.zrange(keys.fair(keys.queue(kind), "capped"), 0, _LANES_LOOKED_AT - 1)
        pipeline.lindex(f"rq:queue:{keys.queue(kind)}", 0)
        ring, capped, inbox = pipeline.execute()
    with client.pipeline(transaction=False) as pipeline:
        for tenant in (*ring, *capped):
            pipeline.lindex(keys.fair(keys.queue(kind), "lane:" + as_text(tenant)), 0)
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
            queue = FairQueue(keys.queue(kind), connection=self._client, serializer=JSONSerializer)
            depth.add_metric([kind], queue.count)
            oldest.add_metric([kind], oldest_wait_s(self._client, kind))
        return depth, oldest

    def _workers(self) -> Iterable[GaugeMetricFamily]:
        workers = GaugeMetricFamily(
            "palaver_workers", "Workers that report, by whether they take jobs.", labels=["kind", "state"]
        )
        counts = {(kind, state): 0 for kind in get_args(Kind) for state in ("ready", "starting")}
        for raw in cast("dict[bytes, bytes]", self._client.hgetall(keys.workers())).values():
            entry = json.loads(raw)
            if time.time() - entry["at_s"] <= _SILENT_S:
                label = (entry["kind"], "ready" if entry["engine"] else "starting")
                counts[label] = counts.get(label, 0) + 1
        for label, count in counts.items():
            workers.add_metric(list(label), count)
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


def export(client: redis.Redis) -> None:
    """Have this process tell what the server knows."""
    REGISTRY.register(ServerCollector(client))
