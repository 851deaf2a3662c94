"""What tenants and their users have used: jobs and GPU-seconds, by kind, of the current day and month (UTC).

Written in the MULTI that ends a job, so that an answer is counted once and only if it was given. Days are kept for a
week and months for a year: ``keys.usage`` names one hash for each owner and period.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

from workers import keys, scripts

if TYPE_CHECKING:
    import redis
    import redis.asyncio

DAYS_KEPT = 8
MONTHS_KEPT = 13
_DAY_TTL_S = DAYS_KEPT * 86_400
_MONTH_TTL_S = MONTHS_KEPT * 31 * 86_400


@dataclass(frozen=True, slots=True)
class Spent:
    """Jobs that were answered, and the GPU-seconds they took."""

    jobs: int = 0
    gpu_s: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.jobs + other.jobs, self.gpu_s + other.gpu_s)


@dataclass(frozen=True, slots=True)
class Period:
    """A day or a month of somebody.

    Args:
        name: ``2026-11-22`` or ``2026-11``, in UTC.
        by_kind: What was used of each kind of model, such as ``chat``; kinds that were not used are absent.
    """

    name: str
    by_kind: Mapping[str, Spent] = field(default_factory=dict)

    @property
    def total(self) -> Spent:
        """Of all kinds together."""
        return sum(self.by_kind.values(), Spent())


@dataclass(frozen=True, slots=True)
class Account:
    """What a tenant or a user has used today and this month."""

    day: Period
    month: Period


@dataclass(frozen=True, slots=True)
class Usage:
    """The accounts that a person may see: the whole tenant's, and their own within it."""

    tenant: Account
    user: Account


@dataclass(frozen=True, slots=True)
class Answer:
    """One answered job, for ``record``."""

    tenant: str
    user: str
    gpu_s: float


async def usage(client: redis.asyncio.Redis, tenant: str, user: str) -> Usage:
    """What a tenant, and a user within it, have used in the current day and month.

    Args:
        client: Connection to the queue's server, returning bytes.
        tenant: As in ``contract.Request``.
        user: As in ``contract.Request``.
    """
    day, month = periods(time.time())
    owners = [(tenant, None, day), (tenant, None, month), (tenant, user, day), (tenant, user, month)]
    async with client.pipeline(transaction=False) as pipeline:
        for owner in owners:
            pipeline.hgetall(keys.usage(*owner))
        found = await pipeline.execute()
    read = [_period(name, fields) for (_, _, name), fields in zip(owners, found, strict=True)]
    return Usage(tenant=Account(read[0], read[1]), user=Account(read[2], read[3]))


def record(pipeline: scripts.SyncClient, kind: str, answers: Iterable[Answer], at_s: float) -> None:
    """Add answered jobs to their tenants' and users' accounts, in the MULTI that ends them.

    Args:
        pipeline: Where to write.
        kind: Which kind of model answered.
        answers: What was answered; many jobs of one owner are one addition.
        at_s: Unix time of the end, which decides the day and the month.
    """
    day, month = periods(at_s)
    sums: dict[tuple[str, str | None], Spent] = defaultdict(Spent)
    for answer in answers:
        spent = Spent(1, answer.gpu_s)
        sums[answer.tenant, None] += spent
        sums[answer.tenant, answer.user] += spent
    if not sums:
        return
    names: list[str] = []
    args: list[scripts.Argument] = [kind]
    for (tenant, user), spent in sums.items():
        names += (keys.usage(tenant, user, day), keys.usage(tenant, user, month))
        gpu_us = round(spent.gpu_s * 1e6)
        args += (spent.jobs, gpu_us, _DAY_TTL_S, spent.jobs, gpu_us, _MONTH_TTL_S)
    scripts.load("record_usage").queue(pipeline, names, args)


async def forget(client: redis.asyncio.Redis, tenant: str, user: str) -> int:
    """Delete what is kept about a user within a tenant; the tenant's own sums stay.

    Returns:
        How many days and months were deleted.
    """
    now_s = time.time()
    days = {periods(now_s - days * 86_400)[0] for days in range(DAYS_KEPT + 1)}
    months = {periods(now_s - days * 86_400)[1] for days in range(0, (MONTHS_KEPT + 1) * 31, 27)}
    names = [keys.usage(tenant, user, period) for period in days | months]
    return int(await cast("Any", client.unlink(*names)))


def periods(at_s: float) -> tuple[str, str]:
    """The day and the month of a Unix time, in UTC: ``("2026-11-22", "2026-11")``."""
    day = (datetime.fromtimestamp(0, UTC) + timedelta(seconds=at_s)).strftime("%Y-%m-%d")
    return day, day[:7]


def _period(name: str, fields: Mapping[bytes, bytes]) -> Period:
    by_kind: dict[str, Spent] = {}
    for raw, value in fields.items():
        kind, separator, what = raw.decode().partition(":")
        if separator:
            spent = Spent(jobs=int(value)) if what == "jobs" else Spent(gpu_s=int(value) / 1e6)
            by_kind[kind] = by_kind.get(kind, Spent()) + spent
    return Period(name, by_kind)
