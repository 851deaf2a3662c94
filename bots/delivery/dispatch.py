"""All deliveries of one front-end process: its own, and those that others have left behind.

    ask      promise, submit, deliver
    run      renews the leases of what is being delivered, takes over what nobody delivers, and acknowledges the
             terminal events of what is delivered

A prompt counts as accepted once it is promised. From then on some process of the front-end shows its end: the one that
took it, or, when that one dies, whichever finds the lease run out. Events are acknowledged after the final message.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import redis

from bots import answers
from bots.delivery import wording
from bots.delivery.content import Picture
from bots.delivery.display import Display, LostLeaseError
from bots.delivery.ledger import Ledger
from bots.delivery.page import Page
from bots.delivery.promises import Promise, Promises
from bots.delivery.surface import GoneError, Surface
from bots.first_contact import FirstContacts, is_first
from bots.image_prompt import ImagePrompt
from bots.request_records import RequestRecords
from bots.service import ChatService, Prompt
from workers import tracing
from workers.client import Client
from workers.contract import Event, ReplyTo
from workers.errors import (
    ArtifactError,
    ContractError,
    JobNotFoundError,
    RedisUnavailableError,
    RefusedError,
    WorkersError,
)
from workers.metrics import DELIVERIES, DELIVERY_LAG
from workers.results import Delivery, EventStream

#: Makes the surface of a job's answer; None if its reply handle says nothing to this release.
OpenSurface = Callable[[str, ReplyTo], Surface | None]
OnEnd = Callable[[Promise, Event | None], Awaitable[None]]

_EVENTS_BLOCK_S = 1.0
_OUTAGE_PAUSE_S = 1.0
_FAILURE_PAUSE_S = 15.0
_CANCEL_AGAIN_S = 0.1
#: Platforms repeat an event for less than an hour.
_REPEATED_S = 3_600
#: What is on its way when the process must go is recorded, so that the next one edits it; longer is not waited for.
_LAST_MESSAGES_S = 5.0

_log = logging.getLogger("palaver.delivery")


class Dispatch:
    """What a front-end hands its prompts to. Run ``run`` beside it for as long as the process lives, then ``close``.

    Args:
        service: The road to the workers.
        client: Where finished pictures are fetched.
        records: What was asked to be drawn.
        promises: This process' view of what is owed.
        ledger: What was posted.
        events: The front-end's events.
        open_surface: Makes surfaces.
        contacts: Tells who asks for the first time.
        disclosure: What is said below the first answer that somebody gets; empty for nothing.
        on_end: Called once for each job that this process has delivered, after its final message; its event is None
            if the job was lost.
    """

    def __init__(
        self,
        service: ChatService,
        client: Client,
        records: RequestRecords,
        promises: Promises,
        ledger: Ledger,
        events: EventStream,
        open_surface: OpenSurface,
        on_end: OnEnd | None = None,
        contacts: FirstContacts | None = None,
        disclosure: str = "",
    ) -> None:
        self._service = service
        self._client = client
        self._records = records
        self._promises = promises
        self._ledger = ledger
        self._events = events
        self._open_surface = open_surface
        self._on_end = on_end
        self._contacts = contacts if disclosure else None
        self._disclosure = disclosure
        self._running: dict[str, asyncio.Task[None]] = {}
        self._owed: dict[str, Promise] = {}  # what those deliver
        self._displays: set[Display] = set()
        self._leases: dict[str, float] = {}
        self._unacknowledged: dict[str, Event] = {}
        self._next_look_s = 0.0
        self._unsure: set[str] = set()  # promised here and not certainly in the queue: Redis went away, or said no
        self._declining: set[str] = set()  # of those, whose authors are being told so
        self._given_up: set[str] = set()  # of those, whose authors were told so
        self._loops: list[asyncio.Task[None]] = []
        DELIVERIES.set_function(lambda: len(self._running))

    async def ask(self, prompt: Prompt | ImagePrompt) -> bool:
        """Take a prompt: submit its job and see its answer, or its pictures, to the end.

        Returns:
            Whether it is new: False for an event that came before, which somebody answers or has answered.

        Raises:
            RefusedError: A rule or a limit says no; its author has to be told so through ``decline``.
            ContractError: The prompt cannot be carried; likewise.
            RedisUnavailableError: Redis is away; ask again, or ``decline``. Should the prompt have reached it all the
                same, it will be answered.
        """
        job_id, asked_s = prompt.job_id, time.monotonic()
        if job_id in self._declining or job_id in self._given_up:
            return False
        if self._contacts is not None:
            prompt = await self._contacts.noted(prompt)
        try:
            if not await self._mine(job_id) and not await self._promises.take(job_id, prompt.reply):
                return False
        except RedisUnavailableError:
            self._unsure.add(job_id)  # it may be promised all the same
            raise
        self._leases[job_id] = asked_s + self._promises.lease_s  # renewed from now on: submitting may take its time
        try:
            if isinstance(prompt, ImagePrompt):
                await self._records.keep(prompt)
                await self._service.imagine(prompt)
            else:
                await self._service.ask(prompt)
        except (RefusedError, ContractError, RedisUnavailableError) as error:
            self._unsure.add(job_id)  # its lease is renewed, so that no other process takes it for lost meanwhile
            if self._contacts is not None and not isinstance(error, RedisUnavailableError):
                await self._contacts.undo(prompt)
            raise
        except BaseException:
            self._let_go(job_id)
            raise
        self._unsure.discard(job_id)
        self._start(Promise(job_id, prompt.reply), asked_s)
        return True

    async def decline(self, job_id: str, tell: Awaitable[bool]) -> None:
        """Tell an author that a prompt is not taken, and only then withdraw what was promised: that settles it.

        Where nobody could be told, or this process dies before, the promise stands: another process, or this one, finds
        it without a job and says that the prompt is lost. If it has reached the queue after all, it is answered.

        Args:
            job_id: Of the prompt, promised or not.
            tell: Says whether the author was told.
        """
        told = False
        self._declining.add(job_id)
        try:
            told = await tell
        finally:
            self._declining.discard(job_id)
            if job_id in self._unsure:
                self._let_go(job_id)
                if told:
                    self._given_up.add(job_id)
        with contextlib.suppress(RedisUnavailableError):  # it is tried again with every renewal of leases
            await self._withdraw()

    async def run(self) -> None:
        """Renew, take over and acknowledge until cancelled."""
        self._loops = [
            asyncio.create_task(self._look_after(), name="leases"),
            asyncio.create_task(self._read_events(), name="events"),
        ]
        await asyncio.gather(*self._loops)

    async def close(self) -> None:
        """Stop delivering and let other processes take over at once."""
        held = list(self._running)
        await end_tasks([*self._loops, *self._running.values()])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LAST_MESSAGES_S):
                await asyncio.gather(*(display.close() for display in self._displays))
        with contextlib.suppress(WorkersError, redis.RedisError, OSError):
            for job_id in held:
                await self._promises.postpone(job_id, 0.0)
            await self._events.close()

    @property
    def in_delivery(self) -> int:
        """Jobs whose answers this process is showing."""
        return len(self._running)

    # Leases

    async def _look_after(self) -> None:
        while True:
            try:
                await self._renew()
                await self._withdraw()
                for promise in await self._promises.adopt():
                    _log.info("job %s: its delivery is taken over", promise.job_id)
                    self._start(promise, time.monotonic())
            except (WorkersError, redis.RedisError, OSError) as error:
                _log.warning("leases cannot be renewed: %s", type(error).__name__)
            await asyncio.sleep(self._promises.lease_s / 4)

    async def _renew(self) -> None:
        asked_s = time.monotonic()
        held = list(self._leases)
        lost = await self._promises.renew(held)
        for job_id in held:
            if job_id not in self._leases:
                continue  # its delivery has ended meanwhile: what is held of it now must run out
            if job_id not in lost:
                self._leases[job_id] = asked_s + self._promises.lease_s
            elif job_id in self._running and not await self._taken_again(self._owed[job_id]):
                _log.info("job %s: another process delivers it", job_id)
                if job_id in self._running:  # it may have ended meanwhile
                    self._running[job_id].cancel()

    async def _taken_again(self, promise: Promise) -> bool:
        """Promise anew what a killed Redis has forgotten; False if somebody else sees to it, or it is kept."""
        asked_s = time.monotonic()
        if not await self._promises.take(promise.job_id, promise.reply, forgotten=True):
            return False
        if promise.job_id in self._running:  # else what is held of it now must run out
            self._leases[promise.job_id] = asked_s + self._promises.lease_s
        return True

    async def _mine(self, job_id: str) -> bool:
        """Whether this process has promised it before and still holds it, without its being in the queue."""
        if job_id not in self._unsure:
            return False
        lost = await self._promises.renew([job_id])
        if lost:
            self._let_go(job_id)
        return not lost

    def _let_go(self, job_id: str) -> None:
        self._unsure.discard(job_id)
        self._leases.pop(job_id, None)

    async def _withdraw(self) -> None:
        """Drop the promises whose authors were told otherwise and whose jobs are not in the queue."""
        for job_id in list(self._given_up):
            if not await self._client.known(job_id):
                await self._promises.keep(job_id, _REPEATED_S)  # the same event again is no second prompt
            self._given_up.discard(job_id)

    async def _check_lease(self, job_id: str) -> None:
        # With a part of it left: what is sent now takes its time, and must have arrived before another process begins.
        if time.monotonic() < self._leases.get(job_id, 0.0) - self._promises.lease_s / 3:
            return
        asked_s = time.monotonic()
        if not await self._promises.renew([job_id]):
            self._leases[job_id] = asked_s + self._promises.lease_s
        elif job_id not in self._owed or not await self._taken_again(self._owed[job_id]):
            raise LostLeaseError

    # One delivery

    def _start(self, promise: Promise, taken_s: float) -> None:
        job_id = promise.job_id
        if job_id in self._running:
            return
        self._leases[job_id] = taken_s + self._promises.lease_s
        self._owed[job_id] = promise
        task = asyncio.create_task(self._deliver(promise), name=f"delivery of {job_id}")
        self._running[job_id] = task
        task.add_done_callback(lambda _: self._ended(job_id))

    def _ended(self, job_id: str) -> None:
        self._running.pop(job_id, None)
        self._owed.pop(job_id, None)
        self._leases.pop(job_id, None)

    async def _deliver(self, promise: Promise) -> None:
        job_id = promise.job_id
        try:
            surface = self._open_surface(job_id, promise.reply)
            if surface is None:
                _log.warning("job %s: its reply handle is not understood, nobody can be answered", job_id)
                await self._promises.keep(job_id)
                return
            event = await self._until_shown(promise, surface)
            if event is not None:
                DELIVERY_LAG.observe(max(0.0, time.time() - event.at_s))
                tracing.passed("delivery", job_id, event.reply, event.at_s, time.time())
            if await self._kept(job_id) and self._on_end is not None:
                await self._on_end(promise, event)
        except LostLeaseError:
            _log.info("job %s: another process delivers it", job_id)
        except Exception:  # noqa: BLE001 - whatever it was, the promise stands
            _log.exception("job %s: not delivered, to be tried again", job_id)
            with contextlib.suppress(WorkersError, redis.RedisError, OSError):
                await self._promises.postpone(job_id, _FAILURE_PAUSE_S)

    async def _until_shown(self, promise: Promise, surface: Surface) -> Event | None:
        """Follow a job and show it to its end; returns its terminal event if it has one."""
        job_id, quoted = promise.job_id, answers.is_answer(promise.reply)
        below = self._disclosure if is_first(promise.reply) else ""
        while True:
            display = Display(job_id, surface, self._ledger, lambda: self._check_lease(job_id))
            self._displays.add(display)
            page = Page(job_id, surface.limit, surface.measure, below=below)
            try:
                asked, cuts = await self._records.find(job_id), await self._ledger.cuts(job_id)
                page = Page(job_id, surface.limit, surface.measure, asked, quoted, below, cuts)
                await display.load()
                return await self._show(job_id, display, page)
            except GoneError as error:
                _log.info("job %s: nobody can be shown its answer, it is stopped: %s", job_id, error)
                with contextlib.suppress(JobNotFoundError):
                    await self._service.stop(job_id, "", moderator=True)
                return page.event
            except JobNotFoundError:
                with contextlib.suppress(GoneError):
                    await display.finish(page.notice(wording.LOST))
                return None
            except RedisUnavailableError:
                _log.warning("job %s: waits for Redis", job_id)
                await asyncio.sleep(_OUTAGE_PAUSE_S)
            finally:
                await display.close()
                self._displays.discard(display)  # one whose closing was cut short is closed with the dispatch

    async def _show(self, job_id: str, display: Display, page: Page) -> Event | None:
        display.show(page.views())
        async for update in self._service.follow(job_id):
            page.take(update)
            if cuts := page.divide(*display.growing):
                await self._ledger.cut(job_id, cuts)
            if page.event is None:
                display.show(page.views())
        if page.event is not None and page.event.images:
            page.pictures = await self.pictures(job_id, page.event)
        await display.finish(page.views())
        return page.event

    async def pictures(self, job_id: str, event: Event) -> tuple[Picture, ...]:
        """The pictures of a finished job; none if they have expired.

        Raises:
            ArtifactStoreError: The store of pictures failed.
            RedisUnavailableError: Redis is away.
        """
        asked = await self._records.find(job_id)
        pictures = []
        for index, image in enumerate(event.images):
            try:
                data = await self._client.artifact(image.artifact_id)
            except ArtifactError:
                _log.info("job %s: its pictures cannot be had any more", job_id)
                return ()
            name = f"palaver-{image.seed}.{image.media_type.partition('/')[2]}"
            said = wording.alt(asked, index, len(event.images)) if asked else wording.PREVIEW_ALT
            pictures.append(Picture(name, data, said, image.covered))
        return tuple(pictures)

    async def _kept(self, job_id: str) -> bool:
        """Record that the final message is shown, however long Redis is away; returns whether that is news."""
        while True:
            try:
                return await self._promises.keep(job_id)
            except RedisUnavailableError:
                await asyncio.sleep(_OUTAGE_PAUSE_S)

    # Events

    async def _read_events(self) -> None:
        while True:
            try:
                deliveries = await self._events.read(block_s=_EVENTS_BLOCK_S)
                await self._take_events(deliveries)
            except (WorkersError, redis.RedisError, OSError) as error:
                _log.warning("events cannot be read: %s", type(error).__name__)
                await asyncio.sleep(_OUTAGE_PAUSE_S)

    async def _take_events(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self._unacknowledged[delivery.entry_id] = delivery.event
        if time.monotonic() < self._next_look_s:
            return
        self._next_look_s = time.monotonic() + _EVENTS_BLOCK_S
        done = []
        for entry_id, event in list(self._unacknowledged.items()):
            if not event.terminal or await self._settled(event):
                done.append(entry_id)
        await self._events.ack(*done)
        for entry_id in done:
            del self._unacknowledged[entry_id]

    async def _settled(self, event: Event) -> bool:
        """Whether a job's final message is shown; sees to it that it will be."""
        job_id = event.job_id
        if job_id in self._running:
            return False
        if await self._ledger.finished(job_id):
            return True
        asked_s = time.monotonic()
        if await self._promises.take(job_id, event.reply):
            self._start(Promise(job_id, event.reply), asked_s)
        return False


async def end_tasks(tasks: Iterable[asyncio.Task[Any]]) -> None:
    """Cancel tasks again and again: redis-py swallows a cancellation that comes while it connects."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_CANCEL_AGAIN_S)
