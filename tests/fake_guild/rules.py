"""How strict and how well the stand-in for Discord is: limits, deadlines, faults. Times can be compressed."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field


@dataclass
class Rules:
    """What a test may change at any time.

    Attributes:
        ack_deadline_s: An interaction that is not acknowledged by then is unknown.
        token_life_s: An interaction's token ends then.
        per_window: Requests of a route in a window, before 429.
        window_s: Length of that window.
        latency_s: Every request takes so long.
        faults: Status codes with which the next requests to messages fail.
        message_content: Whether the application may have that intent.
        content_for_all: Whether it has asked for it.
        max_file_bytes: Largest upload.
        heartbeat_s: How often clients must send a heartbeat.
        mute: Whether heartbeats are not answered.
    """

    ack_deadline_s: float = 3.0
    token_life_s: float = 900.0
    per_window: int = 5
    window_s: float = 5.0
    latency_s: float = 0.0
    faults: list[int] = field(default_factory=list)
    message_content: bool = False
    max_file_bytes: int = 10 * 2**20
    heartbeat_s: float = 41.25
    mute: bool = False


class RateLimits:
    """One window a route; counts what it had to refuse."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._sent: dict[str, deque[float]] = {}
        self.refused = 0

    def take(self, route: str) -> tuple[bool, dict[str, str]]:
        """Count a request; returns whether it may pass, and the headers of its answer."""
        now_s, rules = time.monotonic(), self._rules
        sent = self._sent.setdefault(route, deque())
        while sent and sent[0] <= now_s - rules.window_s:
            sent.popleft()
        allowed = len(sent) < rules.per_window
        if allowed:
            sent.append(now_s)
        else:
            self.refused += 1
        reset_after_s = max(0.001, sent[0] + rules.window_s - now_s) if sent else rules.window_s
        headers = {
            "X-RateLimit-Limit": str(rules.per_window),
            "X-RateLimit-Remaining": str(rules.per_window - len(sent)),
            "X-RateLimit-Reset": f"{time.time() + reset_after_s:.3f}",
            "X-RateLimit-Reset-After": f"{reset_after_s:.3f}",
            "X-RateLimit-Bucket": route.partition("/")[0],
            "Via": "1.1 google",
        }
        return allowed, headers
