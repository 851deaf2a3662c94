"""How often a growing message may be edited: the newest text wins, and the final text always goes out.

Platforms limit how often anything may be sent to one place. All messages of such a place share one ``Budget``; status
lines and edits may not touch its reserve, which belongs to finals. ``Pacer`` decides for one message when its next edit
is due; both are plain arithmetic on a clock that is passed in. ``bots.delivery.display`` drives them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

Clock = Callable[[], float]
Urgency = Literal["edit", "final"]


class Budget:
    """A token bucket for everything that is sent to one place, with a reserve for finals.

    Args:
        per_window: Messages and edits that the platform allows in a window, at least 1.
        window_s: Length of the window.
        reserve: Of those, how many only finals may use; less than ``per_window``.
        clock: Monotonic seconds.
    """

    def __init__(self, per_window: int, window_s: float, reserve: int = 1, clock: Clock = time.monotonic) -> None:
        if not 0 <= reserve < per_window or window_s <= 0:
            raise ValueError("a budget needs 0 <= reserve < per_window and a window longer than 0 s")
        self._capacity = per_window
        self._per_s = per_window / window_s
        self._reserve = reserve
        self._clock = clock
        self._tokens = float(per_window)
        self._at_s = clock()
        self._blocked_until_s = self._at_s

    def wait_s(self, urgency: Urgency) -> float:
        """Seconds until a message of this urgency may go out; 0 if now."""
        now_s = self._refill()
        floor = 1 + (self._reserve if urgency == "edit" else 0)
        # A rounding error of the refill must not cost another round of waiting.
        missing = max(0.0, floor - self._tokens - 1e-9)
        return max(self._blocked_until_s - now_s, missing / self._per_s, 0.0)

    def spend(self) -> None:
        """Count a message that goes out now."""
        self._refill()
        self._tokens -= 1

    def block(self, retry_after_s: float) -> None:
        """Nothing may go out for so long: the platform said so, and it knows better than this bucket.

        Then the reserve is there again and one edit may try, so that a bucket of minutes does not punish everybody for
        minutes.
        """
        self._blocked_until_s = max(self._blocked_until_s, self._refill() + retry_after_s)
        self._tokens = min(self._tokens, 1.0 + self._reserve)

    def observe(self, remaining: int, reset_after_s: float) -> None:
        """What the platform's own headers say after a message; it knows better than this bucket.

        Args:
            remaining: Messages that it still takes in its current window.
            reset_after_s: When that window ends.
        """
        now_s = self._refill()
        self._tokens = min(self._tokens, float(remaining))
        if remaining == 0:
            self._blocked_until_s = max(self._blocked_until_s, now_s + reset_after_s)

    def _refill(self) -> float:
        now_s = self._clock()
        self._tokens = min(self._capacity, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return now_s


class Pacer:
    """When one message is edited next.

    The interval adapts: it doubles when the platform refuses, is never shorter than an edit takes, and shrinks back by
    a tenth with every edit that went well.

    Args:
        budget: Shared with everything else that goes to this place.
        min_interval_s: Shortest time between two edits.
        max_interval_s: Longest time to which refusals stretch it.
        clock: Monotonic seconds, the budget's.
    """

    def __init__(
        self, budget: Budget, min_interval_s: float = 1.3, max_interval_s: float = 20.0, clock: Clock = time.monotonic
    ) -> None:
        self._budget = budget
        self._min_s = min_interval_s
        self._max_s = max_interval_s
        self._clock = clock
        self._next_s = clock()
        self.interval_s = min_interval_s

    def wait_s(self, urgency: Urgency) -> float:
        """Seconds until the next edit may go out. A final waits for the budget only, not for the interval."""
        pause_s = self._next_s - self._clock() if urgency == "edit" else 0.0
        return max(pause_s, self._budget.wait_s(urgency), 0.0)

    def sending(self) -> None:
        """An edit goes out now."""
        self._budget.spend()
        self._next_s = self._clock() + self.interval_s

    def sent(self, took_s: float) -> None:
        """An edit went well.

        Args:
            took_s: How long it took; libraries that obey limits by sleeping within the call show it here.
        """
        self.interval_s = min(self._max_s, max(self._min_s, took_s, self.interval_s * 0.9))

    def unsent(self) -> None:
        """What seemed to go out needed no message: the next edit waits for nothing."""
        self._next_s = self._clock()

    def failed(self, pause_s: float) -> None:
        """An edit did not go out, and no limit is to blame: only this message pauses."""
        self._next_s = self._clock() + pause_s

    def refused(self, retry_after_s: float) -> None:
        """The platform refused an edit."""
        self._budget.block(retry_after_s)
        self.interval_s = min(self._max_s, self.interval_s * 2)
        self._next_s = self._clock() + max(retry_after_s, self.interval_s)
