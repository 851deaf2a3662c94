"""What may still be sent to each workspace, and which of its features are there: shared by all answers of a process."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeVar

from bots.delivery.pacing import Budget
from bots.delivery.surface import SlowDownError

#: What a workspace said it has not is asked for again after this long.
_ASK_AGAIN_S = 3_600.0
_MINUTE_S = 60.0
_CHANNELS_KEPT = 2_000
_ATTEMPTS = 8

_T = TypeVar("_T")


@dataclass(slots=True)
class Feature:
    """Something that a workspace may have or not; taken for there until the platform says no.

    Attributes:
        clock: Monotonic seconds.
    """

    clock: Callable[[], float] = time.monotonic
    _missing_until_s: float = 0.0

    @property
    def there(self) -> bool:
        """Whether it is worth asking for."""
        return self.clock() >= self._missing_until_s

    def missing(self) -> None:
        """The platform has said that it is not there."""
        self._missing_until_s = self.clock() + _ASK_AGAIN_S


@dataclass(slots=True)
class Outbound:
    """One workspace's.

    Attributes:
        edits: Calls of ``chat.update``, of which the platform takes 50 a minute, and posts beside them; a third of it
            belongs to finals.
        appends: Growing streams: 100 a minute, a third of it for ends.
        starts: New streams, 20 a minute; where they run out, answers are edited messages.
        stops: Ends of streams, as many.
        sessions: Changes of an agent's session, 50 a minute, two for each answer.
        streams: Native streaming.
        agent: The agent's session with its native Stop.
    """

    edits: Budget = field(default_factory=lambda: Budget(45, _MINUTE_S, reserve=15))
    appends: Budget = field(default_factory=lambda: Budget(95, _MINUTE_S, reserve=30))
    starts: Budget = field(default_factory=lambda: Budget(18, _MINUTE_S, reserve=0))
    stops: Budget = field(default_factory=lambda: Budget(20, _MINUTE_S, reserve=0))
    sessions: Budget = field(default_factory=lambda: Budget(48, _MINUTE_S, reserve=16))
    streams: Feature = field(default_factory=Feature)
    agent: Feature = field(default_factory=Feature)
    _posts: OrderedDict[str, Budget] = field(default_factory=OrderedDict)

    def posts(self, channel: str) -> Budget:
        """New messages in a channel: about one a second, with short bursts."""
        budget = self._posts.pop(channel, None) or Budget(4, 4.0, reserve=0)
        self._posts[channel] = budget
        if len(self._posts) > _CHANNELS_KEPT:
            self._posts.popitem(last=False)
        return budget


async def patiently(budget: Budget, call: Callable[[], Awaitable[_T]]) -> _T:
    """Call something that must go out, when its own budget allows it; nothing else waits for it.

    Args:
        budget: Of that method.
        call: The call; it may be refused for now.

    Raises:
        SlowDownError: It was refused again and again.
    """
    refusals = 0
    while refusals < _ATTEMPTS:
        wait_s = budget.wait_s("final")
        if wait_s > 0:
            await asyncio.sleep(wait_s)
            continue
        budget.spend()
        try:
            return await call()
        except SlowDownError as refusal:
            refusals += 1
            budget.block(refusal.retry_after_s)
    raise SlowDownError(max(1.0, budget.wait_s("final")))


class Outbounds:
    """Those of all workspaces."""

    def __init__(self) -> None:
        self._known: dict[str, Outbound] = {}

    def of(self, team: str) -> Outbound:
        """That of a workspace."""
        return self._known.setdefault(team, Outbound())
