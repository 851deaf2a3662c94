"""Budgets: how much GPU time a tenant, and a user within it, may take in a day and in a month (UTC).

A job's estimate is reserved when it is admitted, in the same call that decides its rate limits, and replaced by what it
took when it has been answered; one that ends otherwise gives it back. A budget is held against what has been used plus
what is reserved: it may be introduced or changed at any time, and has no state of its own beside ``workers.usage``.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from workers import keys, usage
from workers.contract import Quota
from workers.settings import BudgetSettings

#: How long after its end an account can be given back what was reserved in it.
_GRACE_S = 86_400


class Budget(NamedTuple):
    """One budget that applies to a job.

    Args:
        key: The account that it is held against, from ``keys.usage``.
        owner: What the user is told, ``tenant`` or ``user``.
        period: ``day`` or ``month``.
        ceiling_us: GPU time that may be used in the period, in microseconds.
        cost_us: The job's estimate.
        ends_in_s: Seconds until the period ends and the next begins with nothing used.
    """

    key: str
    owner: str
    period: str
    ceiling_us: int
    cost_us: int
    ends_in_s: int

    @property
    def ttl_s(self) -> int:
        """How long a reservation is to be remembered at least."""
        return self.ends_in_s + _GRACE_S


def budgets_of(
    settings: BudgetSettings | Quota, tenant: str, user: str, cost_gpu_s: float, at_s: float
) -> list[Budget]:
    """Every budget that applies to a job; none where nothing is set, which costs admission nothing.

    Args:
        settings: The ceilings: the operator's, or those of one request.
        tenant: Whose job.
        user: Whose job.
        cost_gpu_s: Its estimated cost in GPU-seconds.
        at_s: Unix time now.
    """
    ceilings = (
        ("user", user, "day", settings.user_day_gpu_s),
        ("user", user, "month", settings.user_month_gpu_s),
        ("tenant", None, "day", settings.tenant_day_gpu_s),
        ("tenant", None, "month", settings.tenant_month_gpu_s),
    )
    set_ones = [ceiling for ceiling in ceilings if ceiling[3]]
    if not set_ones:
        return []
    day, month = usage.periods(at_s)
    ends_in_s = {"day": _day_ends_in_s(at_s), "month": _month_ends_in_s(at_s)}
    return [
        Budget(
            key=keys.usage(tenant, name, day if period == "day" else month),
            owner=owner,
            period=period,
            ceiling_us=round(gpu_s * 1e6),
            cost_us=round(cost_gpu_s * 1e6),
            ends_in_s=ends_in_s[period],
        )
        for owner, name, period, gpu_s in set_ones
    ]


def _day_ends_in_s(at_s: float) -> int:
    return 86_400 - int(at_s) % 86_400


def _month_ends_in_s(at_s: float) -> int:
    now = datetime.fromtimestamp(at_s, UTC)
    next_month = (now.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    return int(next_month.timestamp()) - int(at_s)
