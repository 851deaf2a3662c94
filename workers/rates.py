"""Which rates hold for a request: the operator's per tenant, channel and user, and what a tenant made tighter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import get_args

from workers import keys
from workers.admission import Allowance, Limit
from workers.contract import Kind, Request
from workers.settings import LimitSettings

#: A tenant's own rate lets through so many minutes' worth at once.
_OWN_BURST_MINUTES = 0.5


class Rates:
    """The operator's rates of every kind of job.

    Args:
        limits: For each kind, or for all of them.
    """

    def __init__(self, limits: LimitSettings | Mapping[Kind, LimitSettings]) -> None:
        by_kind = limits if isinstance(limits, Mapping) else dict.fromkeys(get_args(Kind), limits)
        self._allowances = {kind: _allowances(each) for kind, each in by_kind.items()}

    def of(self, request: Request) -> list[Limit]:
        """What admission holds a request to: tenant, channel, user, and the tenant's own rate if it has one."""
        owners = (request.tenant, f"{request.tenant}:{request.channel}", f"{request.platform}:{request.user}")
        allowances = list(self._allowances[request.kind])
        quota = request.quota
        if quota is not None and quota.user_per_minute is not None:
            allowances[-1] = Allowance("user", quota.user_per_minute, quota.user_burst)
        limits = [
            Limit(keys.limit(request.kind, allowance.name, owner), allowance)
            for allowance, owner in zip(allowances, owners, strict=True)
        ]
        if quota is not None and quota.own_per_minute is not None:
            burst = max(1, math.ceil(quota.own_per_minute * _OWN_BURST_MINUTES))
            key = keys.limit("own", "user", f"{request.tenant}:{request.user}")
            limits.append(Limit(key, Allowance("user", quota.own_per_minute, burst)))
        return limits


def _allowances(limits: LimitSettings) -> tuple[Allowance, ...]:
    scopes = (("tenant", limits.tenant), ("channel", limits.channel), ("user", limits.user))
    return tuple(Allowance(scope, rate.per_minute, rate.burst) for scope, rate in scopes)
