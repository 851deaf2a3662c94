"""Wakes a worker at once when a job may be had, while its loop waits for other things as well."""

from __future__ import annotations

import threading
from collections.abc import Callable

import redis

from workers.fair_queue import FairQueue

_WAIT_S = 5.0
_OUTAGE_PAUSE_S = 0.5


class InboxWatch:
    """Blocks on the queue in a thread of its own whenever it is armed, and rings once.

    Args:
        queue: What to watch.
        ring: Called in the thread when something may be poppable.
    """

    def __init__(self, queue: FairQueue, ring: Callable[[], None]) -> None:
        self._queue = queue
        self._ring = ring
        self._armed = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="inbox-watch", daemon=True)
        self._thread.start()

    @property
    def armed(self) -> bool:
        """Whether a ring is still to come."""
        return self._armed.is_set()

    def arm(self) -> None:
        """Watch from now on, until the next ring."""
        self._armed.set()

    def close(self) -> None:
        """End the thread, when its wait is over."""
        self._closed.set()
        self._armed.set()

    def _watch(self) -> None:
        while self._armed.wait() and not self._closed.is_set():
            try:
                found = self._queue.wait(_WAIT_S)
            except (redis.RedisError, OSError, ValueError):
                self._closed.wait(_OUTAGE_PAUSE_S)  # the loop meets the outage itself
                continue
            if found:
                self._armed.clear()
                self._ring()
