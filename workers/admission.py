"""Whether a job may enter the queue: one atomic call decides deduplication and every limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from rq.job import Job
from rq.utils import as_text

from workers import keys, scripts
from workers.budgets import Budget
from workers.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis
    import redis.asyncio

RECORD_TTL_S = 86_400  # as long as results are kept: a repeated event finds its job and not a second run
#: A front-end that cannot enqueue what was admitted has given up by then.
UNQUEUED_S = 180.0
_UNQUEUED_AT_ONCE = 500
_MINUTE_US = 60_000_000
_MAX_WINDOW_US = 10**14  # three years; keeps every sum of times exact in the server's double-precision numbers


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much a limit lets through; the same for every request, so it is worked out once.

    Args:
        name: What the user is told, for example ``user``.
        per_minute: Units that come back each minute, above 0.
        burst: Units that may be taken at once; 0 switches the limit off.

    Attributes:
        unit_us: How long until one unit has come back, in microseconds.
        window_us: The same for the whole burst.

    Raises:
        ValueError: A value is outside its range.
    """

    name: str
    per_minute: float
    burst: float
    unit_us: float = field(init=False)
    window_us: int = field(init=False)

    def __post_init__(self) -> None:
        if not (0 < self.per_minute < math.inf and 0 <= self.burst < math.inf):
            raise ValueError(f"Limit {self.name}: per_minute must be above 0 and burst at least 0, both finite.")
        unit_us = _MINUTE_US / self.per_minute
        if self.burst * unit_us > _MAX_WINDOW_US:
            raise ValueError(f"Limit {self.name}: a burst of {self.burst:g} would take years to come back.")
        object.__setattr__(self, "unit_us", unit_us)
        object.__setattr__(self, "window_us", round(self.burst * unit_us))


class Limit(NamedTuple):
    """One limit that applies to a job.

    Args:
        key: Where its state lies, from ``keys.limit``.
        allowance: How much it lets through.
        cost: Units this job takes, at least 0.
    """

    key: str
    allowance: Allowance
    cost: float = 1

    @property
    def charge_us(self) -> int:
        """What the job takes, as time: how long until it has come back, in microseconds.

        Raises:
            ValueError: The cost is negative or not finite.
        """
        if not 0 <= self.cost < math.inf:
            raise ValueError(f"Limit {self.allowance.name}: cost must be at least 0 and finite.")
        return min(round(self.cost * self.allowance.unit_us), 2 * _MAX_WINDOW_US)


@dataclass(frozen=True, slots=True)
class Admitted:
    """The job is new and has been charged."""

    job_id: str


@dataclass(frozen=True, slots=True)
class Duplicate:
    """The job was admitted before; nothing was charged. It exists unless its submitter died before enqueuing."""

    job_id: str


async def admit(
    client: redis.asyncio.Redis,
    job_id: str,
    limits: Sequence[Limit],
    budgets: Sequence[Budget] = (),
    *,
    record_ttl_s: int = RECORD_TTL_S,
) -> Admitted | Duplicate:
    """Admit a job once, charging all limits and budgets or none.

    Args:
        client: Connection to the queue's server.
        job_id: The same id is never charged twice.
        limits: Every limit that applies.
        budgets: Every budget that applies, from ``budgets.budgets_of``.
        record_ttl_s: How long the id is remembered, in seconds.

    Returns:
        Whether the job is new.

    Raises:
        RefusedError: A limit says no, the one that takes longest to recover; or a budget, with what it has left.

    Source:
        The generic cell rate algorithm, ATM Forum Traffic Management Specification 4.0, 1996.
    """
    active = [limit for limit in limits if limit.allowance.burst > 0]
    reply = await scripts.load("admit").run_async(client, *_call(job_id, active, budgets, record_ttl_s))
    return _decision(job_id, active, budgets, reply)


def admit_now(
    client: redis.Redis,
    job_id: str,
    limits: Sequence[Limit],
    budgets: Sequence[Budget] = (),
    *,
    record_ttl_s: int = RECORD_TTL_S,
) -> Admitted | Duplicate:
    """``admit`` for callers without an event loop."""
    active = [limit for limit in limits if limit.allowance.burst > 0]
    reply = scripts.load("admit").run(client, *_call(job_id, active, budgets, record_ttl_s))
    return _decision(job_id, active, budgets, reply)


def refund(client: scripts.SyncClient | scripts.AsyncClient, job_id: str, *, forget: bool = False) -> Any:
    """Give back what a job was charged, as far as time has not done so already; safe to repeat.

    Args:
        client: A pipeline or MULTI, or a client; with an asyncio client the result is to be awaited.
        job_id: As admitted.
        forget: Whether the id may be admitted again, for a job that never reached the queue.

    Returns:
        What the client returns for a queued or executed command.
    """
    return scripts.load("refund").queue(client, [keys.admission(job_id)], [int(forget)])


def end_reservation(client: scripts.SyncClient, job_id: str) -> None:
    """Give back what a job has reserved of budgets, but not its rate limits; safe to repeat, may be part of a MULTI."""
    scripts.load("refund").queue(client, [keys.admission(job_id)], [2])


def refund_unqueued(client: redis.Redis, age_s: float = UNQUEUED_S) -> int:
    """Give back what jobs were charged that were admitted and never reached the queue.

    Their front-end died in between, or the server took no more writes.

    Args:
        client: Connection to the queue's server.
        age_s: How long ago they were admitted, at least.

    Returns:
        How many there were.
    """
    now_s, _ = client.time()
    refunded, looked_at = 0, _UNQUEUED_AT_ONCE
    while looked_at == _UNQUEUED_AT_ONCE:  # until nothing so old is left, however many are admitted between two calls
        refunded_now, looked_at = _refund_some(client, now_s - age_s)
        refunded += refunded_now
    return refunded


def _refund_some(client: redis.Redis, until_s: float) -> tuple[int, int]:
    """``refund_unqueued`` for a bounded number; returns how many there were, and how many were looked at."""
    name = keys.admitted()
    found = client.zrangebyscore(name, "-inf", until_s, start=0, num=_UNQUEUED_AT_ONCE)
    job_ids = [as_text(cast("bytes", job_id)) for job_id in found]
    if not job_ids:
        return 0, 0
    with client.pipeline(transaction=False) as pipeline:
        for job_id in job_ids:
            pipeline.exists(Job.key_for(job_id), keys.live(job_id))
        queued = pipeline.execute()
    unqueued = [job_id for job_id, known in zip(job_ids, queued, strict=True) if not known]
    with client.pipeline() as pipeline:
        for job_id in unqueued:
            refund(pipeline, job_id, forget=True)
        pipeline.zrem(name, *job_ids)
        pipeline.expire(name, RECORD_TTL_S)
        pipeline.execute()
    return len(unqueued), len(job_ids)


def _call(
    job_id: str, limits: Sequence[Limit], budgets: Sequence[Budget], record_ttl_s: int
) -> tuple[list[str], list[scripts.Argument]]:
    names = [keys.admission(job_id), *(limit.key for limit in limits)]
    args: list[scripts.Argument] = [record_ttl_s]
    for limit in limits:
        args += (limit.charge_us, limit.allowance.window_us)
    for budget in budgets:
        names.append(budget.key)
        args += (budget.ceiling_us, budget.cost_us, budget.ttl_s)
    args += (keys.admitted(), job_id)
    return names, args


def _decision(
    job_id: str, limits: Sequence[Limit], budgets: Sequence[Budget], reply: list[int]
) -> Admitted | Duplicate:
    if reply[0] == 1:
        return Admitted(job_id)
    if reply[0] == 0:
        return Duplicate(job_id)
    if reply[0] == -2:
        raise _over_budget(budgets[reply[1] - 1], left_us=reply[2])
    (_, allowance, cost), wait_us = limits[reply[1] - 1], reply[2]
    name = allowance.name
    if wait_us < 0:
        raise RefusedError(
            name,
            math.inf,
            f"This request costs {cost:g} of the {name} limit, which never allows more than "
            f"{allowance.burst:g} at once. Make it smaller.",
        )
    wait_s = wait_us / 1e6
    raise RefusedError(name, wait_s, f"The {name} limit is used up. Try again in {max(1, math.ceil(wait_s))} s.")


def _over_budget(budget: Budget, left_us: int) -> RefusedError:
    left_gpu_s, ceiling_gpu_s = max(0, left_us) / 1e6, budget.ceiling_us / 1e6
    when = "tomorrow" if budget.period == "day" else "next month"
    return RefusedError(
        f"{budget.owner} budget",
        float(budget.ends_in_s),
        f"The {budget.owner}'s budget of {ceiling_gpu_s:g} GPU-seconds a {budget.period} has {left_gpu_s:.1f} left, "
        f"and this request may take {budget.cost_us / 1e6:.1f}. Make it smaller, or ask again {when} (UTC).",
        left_gpu_s,
    )
