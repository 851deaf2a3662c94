"""Follows one job from wherever it is to its end, through retries, outages of Redis and restarts of the reader."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass

import redis
import redis.asyncio
from rq.job import Job

from workers import keys
from workers.contract import Event, decode_event
from workers.doorbell import Doorbell, Listener
from workers.errors import JobNotFoundError
from workers.position import position
from workers.progress import FIELDS as PROGRESS_FIELDS
from workers.redis_connection import describe_outage
from workers.results import TextDecoder

#: Where no ring comes, for example while Redis drops the subscription, a reader is late by this much.
_POLL_S = 0.5
_POSITION_EVERY_S = 1.0
_BACKOFF_FIRST_S = 0.1
_BACKOFF_LAST_S = 2.0

_logger = logging.getLogger("palaver.follower")


@dataclass(frozen=True, slots=True)
class Queued:
    """The job waits.

    Args:
        position: Jobs that are served before it.
        eta_s: Estimated seconds until it starts, None while nothing has been measured.
    """

    position: int
    eta_s: float | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """The next piece of the answer: whole characters."""

    text: str


@dataclass(frozen=True, slots=True)
class ImageProgress:
    """How far the pictures are; steps that nobody would see are left out.

    Args:
        step: Denoising steps done, from 1.
        total_steps: Of all.
        preview: All of the job's pictures as they look now, in one small encoded picture; None if the last one told
            is still the newest.
    """

    step: int
    total_steps: int
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Restarted:
    """The job begins anew: all text and previews so far are void."""


@dataclass(frozen=True, slots=True)
class Ended:
    """The job's one terminal event; nothing follows."""

    event: Event


Update = Queued | TextDelta | ImageProgress | Restarted | Ended


@dataclass(frozen=True, slots=True)
class _Progress:
    """What Redis says about an execution's pictures at one moment."""

    step: int
    total_steps: int
    preview_number: int
    preview: bytes | None


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """What Redis says about the job at one moment."""

    exists: bool
    kind: str
    execution_id: str
    waiting: bool
    final: bytes | None
    text: bytes
    progress: _Progress | None = None


class Follower:
    """One reader of one job.

    Args:
        connection: Client that returns bytes.
        doorbell: Rings when there is news.
        job_id: Whose answer.
        outage_s: How long Redis may be away before the reader gives up.
        restore: Called when there is no such job; returns whether there is one now.
    """

    def __init__(
        self,
        connection: redis.asyncio.Redis,
        doorbell: Doorbell,
        job_id: str,
        outage_s: float,
        restore: Callable[[str], Awaitable[bool]],
    ) -> None:
        self._redis = connection
        self._doorbell = doorbell
        self._job_id = job_id
        self._outage_s = outage_s
        self._restore = restore
        self._execution_id = ""
        self._decoder = TextDecoder()
        self._told_something = False
        self._told_progress: _Progress | None = None
        self._kind = ""
        self._told_position: Queued | None = None
        self._next_position_s = 0.0

    async def updates(self) -> AsyncIterator[Update]:
        """Everything from the start of the current attempt; the last update is the one ``Ended``.

        Raises:
            JobNotFoundError: The job does not exist, was deleted, or its answer has expired.
            RedisUnavailableError: Redis was away for longer than ``outage_s``.
        """
        with self._doorbell.listener(self._job_id) as listener:
            while True:
                snapshot = await self._look()
                if snapshot.execution_id != self._execution_id:
                    if self._turn_to(snapshot.execution_id, listener):
                        yield Restarted()
                    continue  # look again: the text that came with this one is another execution's
                final = snapshot.final is not None
                text = self._decoder.feed(snapshot.text, final)
                if text:
                    self._told_something = True
                    yield TextDelta(text)
                progress = self._news(snapshot.progress)
                if progress is not None:
                    yield progress
                if snapshot.final is not None:
                    yield Ended(self._complete(decode_event(snapshot.final)))
                    return
                if not snapshot.exists and not await self._restore(self._job_id):
                    raise JobNotFoundError("The job does not exist, or was removed before it ended.")
                queued = await self._position(snapshot) if snapshot.waiting else None
                if queued:
                    yield queued
                await listener.wait(_POLL_S)

    def _turn_to(self, execution_id: str, listener: Listener) -> bool:
        """Read another execution from its start; returns whether what was told is void by that."""
        listener.ids = {self._job_id, execution_id}
        self._execution_id = execution_id
        self._decoder = TextDecoder()
        void, self._told_something = self._told_something, False
        self._told_progress = None
        return void

    def _news(self, progress: _Progress | None) -> ImageProgress | None:
        """What is new about the pictures."""
        told, self._told_progress = self._told_progress, progress
        if progress is None or progress == told:
            return None
        self._told_something = True
        seen = told.preview_number if told else 0
        preview = progress.preview if progress.preview_number > seen else None
        return ImageProgress(progress.step, progress.total_steps, preview)

    def _complete(self, event: Event) -> Event:
        if event.type == "finished" and self._decoder.offset_bytes < event.text_bytes:
            raise JobNotFoundError("The answer has expired.")
        return event

    async def _look(self) -> _Snapshot:
        """Ask Redis, however long it takes to come back."""
        away_since_s: float | None = None
        backoff_s = _BACKOFF_FIRST_S
        while True:
            try:
                return await self._snapshot()
            except (redis.ConnectionError, redis.TimeoutError, OSError) as error:
                now_s = time.monotonic()
                away_since_s = away_since_s or now_s
                if now_s - away_since_s > self._outage_s:
                    raise describe_outage(error, self._redis) from None
                _logger.info("Redis is away (%s); job %s is followed on.", type(error).__name__, self._job_id)
            await asyncio.sleep(backoff_s)
            backoff_s = min(2 * backoff_s, _BACKOFF_LAST_S)

    async def _snapshot(self) -> _Snapshot:
        # One transaction: when it shows the terminal event, it also shows the last of the text.
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hmget(keys.live(self._job_id), "execution_id", "final")
            pipeline.hmget(Job.key_for(self._job_id), "status", "origin")
            pipeline.getrange(keys.text(self._execution_id), self._decoder.offset_bytes, -1)
            if keys.kind_of(self._kind) == "image":
                pipeline.hmget(keys.image_progress(self._execution_id), *PROGRESS_FIELDS)
            (execution, final), (status, origin), text, *progress = await pipeline.execute()
        self._kind = self._kind or (origin or b"").decode()
        return _Snapshot(
            exists=status is not None,
            kind=self._kind,
            execution_id=(execution or b"").decode(),
            waiting=status in (b"queued", b"scheduled", b"deferred"),
            final=final,
            text=text,
            progress=_progress(progress[0]) if progress else None,
        )

    async def _position(self, snapshot: _Snapshot) -> Queued | None:
        """The place in the queue if it has changed since it was told; asked for once a second at most."""
        if time.monotonic() < self._next_position_s:
            return None
        self._next_position_s = time.monotonic() + _POSITION_EVERY_S
        try:
            place = await position(self._redis, snapshot.kind, self._job_id)
        except (redis.ConnectionError, redis.TimeoutError, OSError):
            return None  # the next look at the job deals with the outage
        queued = Queued(place.ahead, place.eta_s) if place else None
        if queued is None or (self._told_position and self._told_position.position == queued.position):
            return None
        self._told_position = queued
        return queued


def _progress(fields: Sequence[bytes | None]) -> _Progress | None:
    step, total_steps, preview_number, preview = fields
    if step is None or total_steps is None:
        return None
    return _Progress(int(step), int(total_steps), int(preview_number or 0), preview)
