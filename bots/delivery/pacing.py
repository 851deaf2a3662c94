"""How often a growing message may be edited: the newest text wins, and the final text always goes out.

Platforms limit how often anything may be sent to one place. All messages of such a place share one ``Budget``; status
lines and edits may not touch its reserve, which belongs to finals. ``Pacer`` decides for one message when its next edit
is due; both are plain arithmetic on a clock that is passed in. ``PacedMessage`` drives them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Literal

Clock = Callable[[], float]
Urgency = Literal["edit", "final"]

_log = logging.getLogger("palaver.delivery")


class SlowDownError(Exception):
    """The platform refused a message for now.

    Args:
        retry_after_s: When it may be tried again.
    """

    def __init__(self, retry_after_s: float) -> None:
        super().__init__(f"the platform asks to wait {retry_after_s:.1f} s")
        self.retry_after_s = retry_after_s


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
        """Nothing may go out for so long: the platform said so, and it knows better than this bucket."""
        self._blocked_until_s = max(self._blocked_until_s, self._refill() + retry_after_s)
        self._tokens = min(self._tokens, 1.0)

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

    def refused(self, retry_after_s: float) -> None:
        """The platform refused an edit."""
        self._budget.block(retry_after_s)
        self.interval_s = min(self._max_s, self.interval_s * 2)
        self._next_s = self._clock() + max(retry_after_s, self.interval_s)


class PacedMessage:
    """Sends the newest text of one message at its pace; ``finish`` returns when the final text is out.

    Args:
        send: Posts or edits the message. Raises ``SlowDownError`` if the platform refuses for now; any other exception
            gives up an edit, and a final after ``final_attempts``.
        pacer: When to send.
        final_attempts: How often a final is tried.
        sleep: Waits for so many seconds.
    """

    def __init__(
        self,
        send: Callable[[str], Awaitable[None]],
        pacer: Pacer,
        final_attempts: int = 5,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._send = send
        self._pacer = pacer
        self._final_attempts = final_attempts
        self._sleep = sleep
        self._clock = clock
        self._newest: str | None = None
        self._shown: str | None = None
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def update(self, text: str) -> None:
        """Show this text soon, unless a newer one comes first."""
        self._newest = text
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._edit())

    async def finish(self, text: str) -> None:
        """Show the final text, whatever it takes; edits that still wait are dropped.

        Raises:
            Exception: What ``send`` raised, when every attempt has failed.
        """
        # An edit on its way must not overtake the final, so it holds the lock; one that only waits is dropped.
        async with self._sending:
            if self._task is not None:
                self._task.cancel()
            self._newest = None
            if text != self._shown:
                await self._finish(text)

    async def _finish(self, text: str) -> None:
        for attempt in range(1, self._final_attempts + 1):
            await self._wait("final")
            try:
                await self._attempt(text)
            except SlowDownError as refusal:
                self._pacer.refused(refusal.retry_after_s)
                failure: Exception = refusal
            except Exception as error:  # noqa: BLE001 - the platform's library raises what it likes
                failure = error
                await self._sleep(min(2.0**attempt, 30.0))
            else:
                return
            name = type(failure).__name__
            _log.warning("final message not delivered, attempt %d of %d: %s", attempt, self._final_attempts, name)
        raise failure

    async def _edit(self) -> None:
        while self._newest is not None:
            await self._wait("edit")
            async with self._sending:
                # What became the newest while waiting is what goes out.
                text, self._newest = self._newest, None
                if text is not None and text != self._shown:
                    await self._try_edit(text)

    async def _try_edit(self, text: str) -> None:
        try:
            await self._attempt(text)
        except SlowDownError as refusal:
            self._pacer.refused(refusal.retry_after_s)
            self._newest = self._newest if self._newest is not None else text
        except Exception as error:  # noqa: BLE001 - an edit is worth no retry: a newer one or the final follows
            _log.info("edit not delivered: %s", type(error).__name__)

    async def _wait(self, urgency: Urgency) -> None:
        while (wait_s := self._pacer.wait_s(urgency)) > 0:
            await self._sleep(wait_s)

    async def _attempt(self, text: str) -> None:
        self._pacer.sending()
        begun_s = self._clock()
        await self._send(text)
        self._shown = text
        self._pacer.sent(self._clock() - begun_s)
