"""What the platform allows, with its own numbers; times can be compressed so that a test need not wait for minutes."""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, field

#: Calls a minute that a workspace allows, by method (tiers 2 to 4 and the special ones).
PER_MINUTE = {
    "chat.postMessage": 300,  # besides one a second for each channel
    "chat.postEphemeral": 100,
    "chat.update": 50,
    "chat.delete": 50,
    "chat.startStream": 20,
    "chat.stopStream": 20,
    "chat.appendStream": 100,
    "agents.sessions.setStatus": 50,
    "assistant.threads.setStatus": 600,
    "assistant.threads.setTitle": 50,
    "assistant.threads.setSuggestedPrompts": 50,
    "conversations.open": 50,
    "conversations.info": 50,
    "conversations.members": 100,
    "conversations.history": 50,
    "conversations.replies": 50,
    "files.getUploadURLExternal": 100,
    "files.completeUploadExternal": 100,
    "files.info": 100,
    "users.info": 100,
    "views.open": 100,
    "views.update": 100,
    "views.push": 100,
    "views.publish": 100,
    "apps.connections.open": 20,
    "auth.test": 600,
}
#: ``chat.postMessage`` allows about one a second for each channel, and short bursts.
POSTS_PER_CHANNEL_S = 1.0
POSTS_BURST = 5


@dataclass(slots=True)
class Rules:
    """Limits in force.

    Attributes:
        ack_deadline_s: Whoever answers an envelope or a request later has not answered it.
        retry_delays_s: When an event is sent again: the platform's are at once, 1 and 5 minutes.
        stream_life_s: A stream dies so long after it began.
        trigger_life_s: A ``trigger_id`` opens one view within this time.
        response_url_life_s, response_url_uses: What a ``response_url`` takes.
        minute_s: Length of a minute of the tiers.
        enforce_tiers: Whether too many calls are answered with 429.
        streaming: Whether ``chat.startStream`` is there at all.
        markdown: Whether messages may have ``markdown`` blocks.
        agent: Whether the app is declared an agent.
        agent_stop: Whether it is subscribed to ``agent_session_stopped``.
    """

    ack_deadline_s: float = 3.0
    retry_delays_s: tuple[float, ...] = (0.2, 0.5, 1.0)
    stream_life_s: float = 300.0
    trigger_life_s: float = 3.0
    response_url_life_s: float = 1800.0
    response_url_uses: int = 5
    minute_s: float = 60.0
    enforce_tiers: bool = True
    streaming: bool = True
    markdown: bool = True
    agent: bool = True
    agent_stop: bool = True


@dataclass(slots=True)
class Tiers:
    """Counts calls and says when the next one may come."""

    rules: Rules
    calls: dict[tuple[str, str], deque[float]] = field(default_factory=dict)

    def refused(self, team: str, method: str, channel: str | None) -> int:
        """Seconds to wait, a whole number as in ``Retry-After``; 0 if the call is allowed and counted."""
        if not self.rules.enforce_tiers:
            return 0
        wait_s = self._wait_s((team, method), PER_MINUTE.get(method, 50), self.rules.minute_s)
        if not wait_s and method == "chat.postMessage" and channel:
            scale = self.rules.minute_s / 60
            wait_s = self._wait_s((channel, method), POSTS_BURST, POSTS_BURST / POSTS_PER_CHANNEL_S * scale)
        return math.ceil(wait_s)

    def _wait_s(self, key: tuple[str, str], allowed: int, window_s: float) -> float:
        now_s = time.monotonic()
        calls = self.calls.setdefault(key, deque())
        while calls and calls[0] <= now_s - window_s:
            calls.popleft()
        if len(calls) >= allowed:
            return calls[0] + window_s - now_s
        calls.append(now_s)
        return 0.0


@dataclass(slots=True)
class Faults:
    """What goes wrong on purpose.

    Attributes:
        limited: Method -> how many of its next calls are answered with 429; ``*`` stands for each method.
        retry_after_s: What those answers say.
        broken: Method -> how many of its next calls are answered with HTTP 503; ``*`` stands for each method.
        errors: Method -> errors that its next calls are answered with.
        slow_s: Method -> how long each call takes.
        lost: Method -> how many of its next calls take effect although their reply never arrives.
        drop_acks: How many of the next acknowledgements are overlooked, so that events come again.
    """

    limited: dict[str, int] = field(default_factory=dict)
    retry_after_s: int = 1
    broken: dict[str, int] = field(default_factory=dict)
    errors: dict[str, list[str]] = field(default_factory=dict)
    slow_s: dict[str, float] = field(default_factory=dict)
    lost: dict[str, int] = field(default_factory=dict)
    drop_acks: int = 0
    _each: dict[tuple[str, str], int] = field(default_factory=dict)

    def limits(self, method: str) -> bool:
        return self._take("limited", self.limited, method)

    def breaks(self, method: str) -> bool:
        return self._take("broken", self.broken, method)

    def loses(self, method: str) -> bool:
        return self._take("lost", self.lost, method)

    def error(self, method: str) -> str | None:
        errors = self.errors.get(method)
        return errors.pop(0) if errors else None

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def _take(self, kind: str, counts: dict[str, int], method: str) -> bool:
        if counts.get(method, 0) > 0:
            counts[method] -= 1
            return True
        used = self._each.get((kind, method), 0)
        if used < counts.get("*", 0):
            self._each[kind, method] = used + 1
            return True
        return False
