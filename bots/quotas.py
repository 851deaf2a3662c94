"""What one person may use in one tenant: the operator's limits, the tier of a role, and what the tenant tightens."""

from __future__ import annotations

from collections.abc import Collection

from bots.settings import Settings
from bots.tenant_config import TenantConfig
from workers.contract import Kind, Quota
from workers.settings import TierSettings


def quota_of(settings: Settings, config: TenantConfig, kind: Kind, roles: Collection[str]) -> Quota | None:
    """Limits and budgets for a request.

    A tier replaces the general limits of a user, as the operator has defined it. What a tenant decides itself is only
    ever tighter than that: its own budgets are the smaller ones, and its own rate comes on top.

    Args:
        settings: The operator's.
        config: The tenant's.
        kind: Of the request.
        roles: Of the person, by id; those of a tier are looked for among them.

    Returns:
        None where nothing differs from the operator's general limits.
    """
    tier = tier_of(settings, config, roles)
    tightened = config.user_per_minute, config.user_day_gpu_s, config.user_month_gpu_s
    if tier is None and not any(tightened):
        return None
    general, budgets = settings.limits.by_kind[kind].user, settings.budgets
    day = budgets.user_day_gpu_s if tier is None or tier.day_gpu_s is None else tier.day_gpu_s
    month = budgets.user_month_gpu_s if tier is None or tier.month_gpu_s is None else tier.month_gpu_s
    own_rate = tier is not None and tier.per_minute is not None and general.burst > 0
    return Quota(
        user_per_minute=tier.per_minute if tier is not None and own_rate else None,
        user_burst=tier.burst if tier is not None and own_rate else 1,
        own_per_minute=config.user_per_minute,
        tenant_day_gpu_s=budgets.tenant_day_gpu_s,
        tenant_month_gpu_s=budgets.tenant_month_gpu_s,
        user_day_gpu_s=_tighter(day, config.user_day_gpu_s),
        user_month_gpu_s=_tighter(month, config.user_month_gpu_s),
    )


def tier_of(settings: Settings, config: TenantConfig, roles: Collection[str]) -> TierSettings | None:
    """The tier of a person: of several, the one that the operator lists last."""
    names = {config.tiers[role] for role in roles if role in config.tiers}
    found = [tier for name, tier in settings.tiers.items() if name in names]
    return found[-1] if found else None


def _tighter(given: float, wanted: float | None) -> float:
    """The smaller of two budgets, of which 0 is none at all."""
    if not wanted:
        return given
    return min(given, wanted) if given else wanted
