"""The row of messages that shows one answer: it follows a target at the pace the platform allows.

While an answer grows, only the newest target counts: what was overtaken before it could be shown is never sent. The
final target is shown whole, whatever that takes. Every message is recorded around its posting, so that a process that
takes over finds it again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence

from bots.delivery.content import View
from bots.delivery.ledger import Ledger
from bots.delivery.pacing import Clock, Pacer, Urgency
from bots.delivery.rollover import Life
from bots.delivery.surface import ExpiredError, GoneError, SlowDownError, Surface
from workers.metrics import EDITS

#: Places of the messages on a surface's fallback, so that both can be told apart after a restart.
FALLBACK_BASE = 1_000
_RETRY_EDIT_S = 1.0
_LONGEST_PAUSE_S = 30.0

_log = logging.getLogger("palaver.delivery")


class LostLeaseError(Exception):
    """Another process delivers this job by now: nothing more may be sent."""


class Display:
    """The messages of one job.

    Args:
        job_id: Whose.
        surface: Where they are shown.
        ledger: Where they are recorded.
        check_lease: Called before anything is sent; raises ``LostLeaseError``.
        final_attempts: How often in a row a message of the final target may fail before ``finish`` gives up. Being
            told to wait is no failure.
        sleep: Waits for so many seconds.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        job_id: str,
        surface: Surface,
        ledger: Ledger,
        check_lease: Callable[[], Awaitable[None]],
        final_attempts: int = 5,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Clock = time.monotonic,
    ) -> None:
        self._job_id = job_id
        self._surface = surface
        self._ledger = ledger
        self._check_lease = check_lease
        self._final_attempts = final_attempts
        self._sleep = sleep
        self._clock = clock
        self._pacer = Pacer(surface.budget, clock=clock)
        self._base = 0
        self._ids: dict[int, str] = {}
        self._shown: dict[int, View] = {}
        self._target: tuple[View, ...] = ()
        self._final = False
        self._sending = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._gone: GoneError | LostLeaseError | None = None

    async def load(self) -> None:
        """Find what an earlier process has posted; call it first."""
        places = await self._ledger.places(self._job_id)
        self._ids = {index: message_id for index, message_id in places.items() if message_id is not None}
        for _ in range(max(places, default=0) // FALLBACK_BASE):
            self._move()

    @property
    def surface(self) -> Surface:
        """Where the answer is shown by now."""
        return self._surface

    @property
    def growing(self) -> tuple[Life, View | None]:
        """The last message of the target: how long it can still grow, and what it shows by now."""
        index = len(self._target) - 1
        message_id = self._ids.get(self._base + index)
        life = self._surface.life(message_id) if message_id is not None else Life.FRESH
        return life, self._shown.get(index)

    def show(self, target: Sequence[View]) -> None:
        """Show this soon, unless something newer comes first.

        Raises:
            GoneError: An earlier edit found that there is nothing left to edit.
            LostLeaseError: An earlier edit found that the job is somebody else's.
        """
        if self._gone is not None:
            raise self._gone
        if self._target and self._stale() is not None:
            EDITS.labels("dropped").inc()
        self._target = tuple(target)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._follow())

    async def finish(self, target: Sequence[View]) -> None:
        """Show the final target and delete whatever is shown beyond it.

        Raises:
            GoneError: There is nothing left to edit, and nothing may be posted.
            LostLeaseError: The job is somebody else's.
            Exception: What the surface raised at the last of several attempts.
        """
        # An edit on its way must not overtake the final, so it holds the lock; one that only waits is dropped.
        async with self._sending:
            if self._task is not None:
                self._task.cancel()
            if self._gone is not None:
                raise self._gone
            self._target, self._final = tuple(target), True
            failures = 0
            while self._stale() is not None:
                await self._wait("final")
                try:
                    await self._send()
                    failures = 0
                except (GoneError, LostLeaseError):
                    raise
                except Exception as error:
                    failures += 1
                    EDITS.labels("failed").inc()
                    if failures >= self._final_attempts:
                        raise
                    name = type(error).__name__
                    _log.warning("job %s: its final message failed (%s) and is tried again", self._job_id, name)
                    await self._sleep(min(2.0**failures, _LONGEST_PAUSE_S))

    async def close(self) -> None:
        """Send nothing more; what is on its way is waited for."""
        async with self._sending:
            if self._task is not None:
                self._task.cancel()

    async def _follow(self) -> None:
        while self._gone is None and self._stale() is not None:
            await self._wait("edit")
            async with self._sending:
                # What became the newest while waiting is what goes out.
                if self._stale() is None:
                    return
                try:
                    await self._send()
                except (GoneError, LostLeaseError) as error:
                    self._gone = error
                except Exception as error:  # noqa: BLE001 - an edit that failed is tried again with newer content
                    _log.info("job %s: edit not delivered: %s", self._job_id, type(error).__name__)
                    EDITS.labels("failed").inc()
                    self._pacer.failed(_RETRY_EDIT_S)

    async def _wait(self, urgency: Urgency) -> None:
        while (wait_s := self._pacer.wait_s(urgency)) > 0:
            await self._sleep(wait_s)

    def _stale(self) -> int | None:
        """The first message that does not show what it should; in the end also one too many."""
        for index, view in enumerate(self._target):
            if self._shown.get(index) != view:
                return index
        own = [place - self._base for place in self._ids if place // FALLBACK_BASE == self._base // FALLBACK_BASE]
        return max(own) if self._final and own and max(own) >= len(self._target) else None

    async def _send(self) -> None:
        """Bring one message up to date."""
        index = self._stale()
        if index is None:
            return
        await self._check_lease()
        self._pacer.sending()
        begun_s = self._clock()
        try:
            if index < len(self._target):
                view = self._target[index]
                await self._put(self._base + index, view)
                self._shown[index] = view
            else:
                await self._remove(self._base + index)
        except SlowDownError as refusal:
            EDITS.labels("refused").inc()
            self._pacer.refused(refusal.retry_after_s)
        except ExpiredError:
            if not self._move():
                raise GoneError("the way of answering has expired, and there is no other") from None
        else:
            EDITS.labels("sent").inc()
            self._pacer.sent(self._clock() - begun_s)
            if self._base + index not in self._ids:
                self._pacer.unsent()  # it was announced: the first message of the answer need not wait for that

    async def _put(self, place_index: int, view: View) -> None:
        message_id = self._ids.get(place_index)
        if message_id is None and not view.complete and await self._surface.announce(view):
            return
        if message_id is None:
            place = await self._ledger.reserve(self._job_id, place_index)
            message_id = place.message_id
            if message_id is None:
                self._ids[place_index] = posted = await self._surface.post(view, place)
                counts = await self._ledger.posted(self._job_id, place_index, posted)
                if counts == posted:
                    return
                await self._surface.delete(posted)
                message_id = counts
            self._ids[place_index] = message_id
        await self._surface.edit(message_id, view)

    async def _remove(self, place_index: int) -> None:
        await self._surface.delete(self._ids[place_index])
        await self._ledger.deleted(self._job_id, place_index)
        del self._ids[place_index]

    def _move(self) -> bool:
        """Go on at the surface's fallback, with messages of its own; returns whether there is one."""
        fallback = self._surface.fallback()
        if fallback is None:
            return False
        _log.info("job %s: its way of answering has expired, it goes on with messages of the bot", self._job_id)
        self._surface = fallback
        self._pacer = Pacer(fallback.budget, clock=self._clock)
        self._base += FALLBACK_BASE
        self._shown.clear()
        return True
