"""How many jobs will start before a queued one, and when it is likely to start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rq import Queue
from rq.intermediate_queue import IntermediateQueue
from rq.job import Job

from workers import keys, scripts

if TYPE_CHECKING:
    import redis.asyncio

REPORT_VALID_S = 60
_EWMA_WEIGHT = 0.1  # of the newest job: half of the memory is the last seven
_SORT_AT_ONCE = 64
_SORT_CALLS = 16
_COSTS_OF_TENANTS = 32
_COSTS_OF_EACH = 8
_LENGTHS_OF_TENANTS = 256


@dataclass(frozen=True, slots=True)
class Position:
    """Where a job stands.

    Attributes:
        ahead: Jobs that will start before it if no other arrives.
        eta_s: Seconds until it is likely to start; None while no worker has reported its speed.
    """

    ahead: int
    eta_s: float | None


async def position(client: redis.asyncio.Redis, kind: str, job_id: str) -> Position | None:
    """Look up a queued job's place in the fair order.

    The order of service is replayed on paper in bounded work. The number is exact up to one job a competing tenant
    while at most 32 tenants compete and each tenant's own jobs cost the same; beyond that, costs and lengths of lanes
    are sampled. Caps are not foreseen: jobs of a tenant that runs as many as it may are not counted. Behind a burst of
    more than a thousand jobs that no worker has sorted yet, all jobs ahead in the inbox count.

    Args:
        client: Connection to the queue's server.
        kind: Which queue.
        job_id: Which job.

    Returns:
        Its position, or None if it is not waiting: it runs, has ended or never was.
    """
    inbox = Queue.redis_queue_namespace_prefix + keys.queue(kind)
    names = [inbox, IntermediateQueue.get_intermediate_queue_key(inbox)]
    common: list[scripts.Argument] = [keys.fair(keys.queue(kind), ""), Job.redis_job_namespace_prefix]
    # Sorting is anybody's business: without it a job just pushed would have no place yet.
    for _ in range(_SORT_CALLS):
        _, _, left = await scripts.load("lanes", "pop").run_async(client, names, [*common, 0, _SORT_AT_ONCE, 0])
        if not left:
            break
    bounds = [_COSTS_OF_TENANTS, _COSTS_OF_EACH, _LENGTHS_OF_TENANTS, REPORT_VALID_S]
    ahead, per_s = await scripts.load("lanes", "position").run_async(
        client, [*names, keys.speed(kind)], [*common, job_id, *bounds]
    )
    if ahead < 0:
        return None
    return Position(ahead=ahead, eta_s=(ahead + 1) / float(per_s) if float(per_s) > 0 else None)


def report_speed(
    client: scripts.SyncClient | scripts.AsyncClient, kind: str, worker: str, slots: int, seconds_per_job: float
) -> None:
    """Tell how fast a worker is, for the ETA; to be repeated within a minute. May be part of a MULTI.

    Args:
        client: A pipeline, MULTI or client.
        kind: Which queue it serves.
        worker: Its name; reports of the same worker replace each other.
        slots: Jobs it runs at once, at least 1.
        seconds_per_job: How long one job occupies a slot, above 0; see ``SpeedMeter``.
    """
    if slots < 1 or not 0 < seconds_per_job < float("inf"):
        raise ValueError("slots must be at least 1 and seconds_per_job above 0.")
    args: list[scripts.Argument] = [worker, slots, f"{seconds_per_job:.9g}", REPORT_VALID_S]
    scripts.load("report_speed").queue(client, [keys.speed(kind)], args)


class SpeedMeter:
    """Exponentially weighted mean of how long jobs occupy a slot."""

    def __init__(self) -> None:
        self.seconds_per_job: float | None = None

    def observe(self, duration_s: float) -> None:
        """Count one finished job.

        Args:
            duration_s: From start to end, in seconds; at least a millisecond is assumed.
        """
        duration_s = max(duration_s, 1e-3)
        if self.seconds_per_job is None:
            self.seconds_per_job = duration_s
        else:
            self.seconds_per_job += _EWMA_WEIGHT * (duration_s - self.seconds_per_job)
