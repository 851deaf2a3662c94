"""What may still be sent to each workspace, and which of its features are there: shared by all answers of a process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from bots.delivery.pacing import Budget

#: What a workspace said it has not is asked for again after this long.
_ASK_AGAIN_S = 3_600.0
_MINUTE_S = 60.0


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
        streams: Native streaming.
        agent: The agent's session with its native Stop.
    """

    edits: Budget = field(default_factory=lambda: Budget(45, _MINUTE_S, reserve=15))
    appends: Budget = field(default_factory=lambda: Budget(95, _MINUTE_S, reserve=30))
    starts: Budget = field(default_factory=lambda: Budget(18, _MINUTE_S, reserve=0))
    streams: Feature = field(default_factory=Feature)
    agent: Feature = field(default_factory=Feature)


class Outbounds:
    """Those of all workspaces."""

    def __init__(self) -> None:
        self._known: dict[str, Outbound] = {}

    def of(self, team: str) -> Outbound:
        """That of a workspace."""
        return self._known.setdefault(team, Outbound())
