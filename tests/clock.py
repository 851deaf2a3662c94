"""Time under a test's control."""

from __future__ import annotations

import asyncio


class Clock:
    """Time that passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        self.now_s += seconds
        await asyncio.sleep(0)


class DrivenClock(Clock):
    """Time that passes only when the test says so."""

    async def sleep(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self.now_s < until_s:  # noqa: ASYNC110 - virtual time has no event to wait for
            await asyncio.sleep(0)
