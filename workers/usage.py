"""What tenants and their users have used: jobs and GPU-seconds, by kind, of the current day and month (UTC).

Written in the MULTI that ends a job, so that an answer is counted once and only if it was given. Days are kept for a
week and months for a year: ``keys.usage`` names one hash for each owner and period.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, cast

from workers import keys, scripts
from workers.settings import BudgetSettings

if TYPE_CHECKING:
    import redis
    import redis.asyncio

    from workers.contract import Quota

NO_BUDGETS = BudgetSettings()
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
        reserved_gpu_s: What jobs that are queued or running may take, where a budget is set.
        budget_gpu_s: What may be used in all; None if no budget is set.
    """

    name: str
    by_kind: Mapping[str, Spent] = field(default_factory=dict)
    reserved_gpu_s: float = 0.0
    budget_gpu_s: float | None = None

    @property
    def total(self) -> Spent:
        """Of all kinds together."""
        return sum(self.by_kind.values(), Spent())

    @property
    def left_gpu_s(self) -> float:
        """What the budget has left; infinite if none is set."""
        if self.budget_gpu_s is None:
            return math.inf
        return max(0.0, self.budget_gpu_s - self.total.gpu_s - self.reserved_gpu_s)


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

    job_id: str
    tenant: str
    user: str
    gpu_s: float


async def usage(
    client: redis.asyncio.Redis, tenant: str, user: str, budgets: BudgetSettings | Quota = NO_BUDGETS
) -> Usage:
    """What a tenant, and a user within it, have used in the current day and month.

    Args:
        client: Connection to the queue's server, returning bytes.
        tenant: As in ``contract.Request``.
        user: As in ``contract.Request``.
        budgets: Which budgets are set.
    """
    day, month = periods(time.time())
    owners = [(tenant, None, day), (tenant, None, month), (tenant, user, day), (tenant, user, month)]
    async with client.pipeline(transaction=False) as pipeline:
        for owner in owners:
            pipeline.hgetall(keys.usage(*owner))
        found = await pipeline.execute()
    ceilings = (
        budgets.tenant_day_gpu_s,
        budgets.tenant_month_gpu_s,
        budgets.user_day_gpu_s,
        budgets.user_month_gpu_s,
    )
    read = [_period(owner[2], *of) for owner, *of in zip(owners, found, ceilings, strict=True)]
    return Usage(tenant=Account(read[0], read[1]), user=Account(read[2], read[3]))


def record(pipeline: scripts.SyncClient, kind: str, answers: Iterable[Answer], at_s: float) -> None:
    """Add answered jobs to their tenants' and users' accounts, in the MULTI that ends them; reservations end.

    Args:
        pipeline: Where to write.
        kind: Which kind of model answered.
        answers: What was answered; many jobs of one owner are one addition.
        at_s: Unix time of the end, which decides the day and the month.
    """
    day, month = periods(at_s)
    records: list[str] = []
    sums: dict[tuple[str, str | None], Spent] = defaultdict(Spent)
    for answer in answers:
        spent = Spent(1, answer.gpu_s)
        sums[answer.tenant, None] += spent
        sums[answer.tenant, answer.user] += spent
        records.append(keys.admission(answer.job_id))
    if not sums:
        return
    names: list[str] = []
    args: list[scripts.Argument] = [kind, 2 * len(sums)]
    for (tenant, user), spent in sums.items():
        names += (keys.usage(tenant, user, day), keys.usage(tenant, user, month))
        gpu_us = round(spent.gpu_s * 1e6)
        args += (spent.jobs, gpu_us, _DAY_TTL_S, spent.jobs, gpu_us, _MONTH_TTL_S)
    scripts.load("record_usage").queue(pipeline, [*names, *records], args)


async def top_up(
    client: redis.asyncio.Redis, tenant: str, user: str | None, gpu_s: float, period: Literal["day", "month"]
) -> None:
    """Raise the budget of the current day or month once; has no effect where no budget is set.

    Args:
        client: Connection to the queue's server.
        tenant: Whose budget.
        user: Whose budget within the tenant; None for the tenant's own.
        gpu_s: By how many GPU-seconds; below 0 takes back.
        period: Which budget.
    """
    day, month = periods(time.time())
    account = keys.usage(tenant, user, day if period == "day" else month)
    async with client.pipeline(transaction=True) as pipeline:
        pipeline.hincrby(account, "extra_us", round(gpu_s * 1e6))
        pipeline.expire(account, _DAY_TTL_S if period == "day" else _MONTH_TTL_S)
        await pipeline.execute()


async def tenants_of(client: redis.asyncio.Redis, user: str) -> set[str]:
    """Tenants in which a user has an account; looks through all keys, so it is for rare wishes."""
    pattern = keys.usage("*", user, "*")
    before, after = pattern.split("*")[0], f":{user}:"
    found = set()
    async for name in client.scan_iter(pattern, count=1_000):
        found.add(name.decode().removeprefix(before).rpartition(after)[0])
    return found


async def forget(client: redis.asyncio.Redis, tenant: str, user: str) -> int:
    """Delete what is kept about a user within a tenant.

    The tenant's own sums stay, and so does the bare number of GPU-seconds of the user's current day and month until
    they end: it is what budgets are held against.

    Returns:
        How many days and months were deleted.
    """
    now_s = time.time()
    current = periods(now_s)
    for period in current:
        account = keys.usage(tenant, user, period)
        told = [name for name in await cast("Any", client.hkeys(account)) if b":" in name]
        if told:
            await cast("Any", client.hdel(account, *told))
    days = {periods(now_s - days * 86_400)[0] for days in range(DAYS_KEPT + 1)}
    months = {periods(now_s - days * 86_400)[1] for days in range(0, (MONTHS_KEPT + 1) * 31, 27)}
    names = [keys.usage(tenant, user, period) for period in (days | months) - set(current)]
    return int(await cast("Any", client.unlink(*names)))


def periods(at_s: float) -> tuple[str, str]:
    """The day and the month of a Unix time, in UTC: ``("2026-11-22", "2026-11")``."""
    day = (datetime.fromtimestamp(0, UTC) + timedelta(seconds=at_s)).strftime("%Y-%m-%d")
    return day, day[:7]


def _period(name: str, fields: Mapping[bytes, bytes], ceiling_gpu_s: float) -> Period:
    by_kind: dict[str, Spent] = {}
    for raw, value in fields.items():
        kind, separator, what = raw.decode().partition(":")
        if separator:
            spent = Spent(jobs=int(value)) if what == "jobs" else Spent(gpu_s=int(value) / 1e6)
            by_kind[kind] = by_kind.get(kind, Spent()) + spent
    reserved_gpu_s = max(0, int(fields.get(b"reserved_us", 0))) / 1e6
    extra_gpu_s = int(fields.get(b"extra_us", 0)) / 1e6
    return Period(name, by_kind, reserved_gpu_s, ceiling_gpu_s + extra_gpu_s if ceiling_gpu_s else None)
