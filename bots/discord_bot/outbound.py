"""What may be sent to Discord and when: a budget for each route, shared by all parts, corrected by its headers."""

from __future__ import annotations

import re
import time
from collections import OrderedDict
from types import SimpleNamespace

import aiohttp

from bots.delivery.pacing import Budget
from workers.metrics import PLATFORM_REFUSALS

#: What Discord allows in practice; its headers correct it.
_PER_WINDOW = 5
_WINDOW_S = 5.0
_RESERVE = 2
_BUDGETS_KEPT = 5_000
_ROUTE = re.compile(r"/(channels/\d+/messages|webhooks/\d+/[^/]+)")


class Outbound:
    """The budgets of one process; by channel for messages, by token for interactions."""

    def __init__(self) -> None:
        self._budgets: OrderedDict[str, Budget] = OrderedDict()

    def channel(self, channel_id: str) -> Budget:
        """What goes into a channel as messages of the bot."""
        return self._budget(f"channels/{channel_id}/messages")

    def interaction(self, application_id: int, token: str) -> Budget:
        """What goes out through an interaction's token."""
        return self._budget(f"webhooks/{application_id}/{token}")

    def trace(self) -> aiohttp.TraceConfig:
        """For the client's HTTP session: reads the limits off every response."""
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._on_response)
        return config

    def _budget(self, route: str) -> Budget:
        budget = self._budgets.pop(route, None) or Budget(_PER_WINDOW, _WINDOW_S, _RESERVE, time.monotonic)
        self._budgets[route] = budget
        if len(self._budgets) > _BUDGETS_KEPT:
            self._budgets.popitem(last=False)
        return budget

    async def _on_response(
        self, session: aiohttp.ClientSession, context: SimpleNamespace, params: aiohttp.TraceRequestEndParams
    ) -> None:
        del session, context
        if params.response.status == 429:
            PLATFORM_REFUSALS.labels("discord").inc()
        route = _ROUTE.search(params.url.raw_path)
        if route is None or route.group(1) not in self._budgets:
            return
        budget, headers = self._budgets[route.group(1)], params.response.headers
        try:
            if params.response.status == 429:
                budget.block(float(headers.get("Retry-After", 1)))
            elif "X-RateLimit-Remaining" in headers:
                reset_after_s = float(headers.get("X-RateLimit-Reset-After", 1))
                budget.observe(int(headers["X-RateLimit-Remaining"]), reset_after_s)
        except ValueError:
            return  # a proxy's idea of these headers
