"""A place for messages in memory: a ``Surface`` whose platform does as it is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from bots.delivery.content import View
from bots.delivery.ledger import Place
from bots.delivery.pacing import Budget, Clock
from bots.delivery.rollover import Life
from bots.delivery.splitting import Measure
from bots.delivery.surface import GoneError, Surface


@dataclass
class Platform:
    """What everybody sees, whichever process shows it.

    Attributes:
        messages: By id, in the order of their posting.
        shown: Every text that was ever sent, with the time.
        faults: Raised by the next calls, in order; None lets a call pass.
        takes_s: How long a call takes.
    """

    clock: Clock = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    messages: dict[str, View] = field(default_factory=dict)
    nonces: dict[str, str] = field(default_factory=dict)
    shown: list[tuple[float, str]] = field(default_factory=list)
    faults: list[Exception | None] = field(default_factory=list)
    takes_s: float = 0.0

    async def call(self, view: View | None = None) -> None:
        if self.takes_s:
            await self.sleep(self.takes_s)
        fault = self.faults.pop(0) if self.faults else None
        if fault is not None:
            raise fault
        if view is not None:
            self.shown.append((self.clock(), view.text))

    @property
    def texts(self) -> list[str]:
        """The messages as they are now."""
        return [view.text for view in self.messages.values()]


class Wall:
    """One job's place on it."""

    def __init__(
        self, platform: Platform, limit: int = 2_000, budget: Budget | None = None, after: Surface | None = None
    ) -> None:
        self.platform = platform
        self._limit = limit
        self._budget = budget or Budget(1_000, 1.0, clock=platform.clock)
        self._after = after

    @property
    def limit(self) -> int:
        return self._limit

    @property
    def measure(self) -> Measure:
        return len

    @property
    def budget(self) -> Budget:
        return self._budget

    async def announce(self, view: View) -> bool:
        return False

    async def post(self, view: View, place: Place) -> str:
        await self.platform.call(view)
        message_id = self.platform.nonces.setdefault(place.nonce, f"m{len(self.platform.nonces)}")
        self.platform.messages[message_id] = view
        return message_id

    async def edit(self, message_id: str, view: View) -> None:
        await self.platform.call(view)
        if message_id not in self.platform.messages:
            raise GoneError(message_id)
        self.platform.messages[message_id] = view

    async def delete(self, message_id: str) -> None:
        await self.platform.call()
        self.platform.messages.pop(message_id, None)

    def life(self, message_id: str) -> Life:
        return Life.FRESH

    def fallback(self) -> Surface | None:
        return self._after
