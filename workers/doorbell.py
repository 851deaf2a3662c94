"""Wakes readers when a job they follow has news, so that they need not poll hard.

Rings are lost while Redis is away; whoever waits therefore waits with a timeout and looks for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Iterator

import redis
import redis.asyncio

from workers import keys

_RECONNECT_S = 1.0
_LISTEN_S = 5.0
_CANCEL_AGAIN_S = 0.1

_logger = logging.getLogger("palaver.doorbell")


def ring(pipeline: redis.Redis, kind: str, ids: Iterable[str]) -> None:
    """Tell readers that something is new.

    Args:
        pipeline: A client or a pipeline; inside a MULTI the bell rings when the state has changed, not before.
        kind: Kind of the jobs.
        ids: Job ids or execution ids; readers listen for both.
    """
    pipeline.publish(keys.doorbell(kind), " ".join(ids))


class Listener:
    """What one reader waits for; made by ``Doorbell.listener``.

    Attributes:
        ids: Job and execution ids whose ring wakes it; change it at will.
    """

    def __init__(self, ids: Iterable[str]) -> None:
        self.ids = set(ids)
        self._rung = asyncio.Event()

    def hear(self, ids: frozenset[str]) -> None:
        """Wake up if one of the ids is among one's own."""
        if not self.ids.isdisjoint(ids):
            self._rung.set()

    async def wait(self, timeout_s: float) -> None:
        """Return when the bell has rung since the last call, or after a time."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._rung.wait(), timeout_s)
        self._rung.clear()


class Doorbell:
    """One subscription of this process, shared by all its readers.

    Args:
        connection: Client whose server carries the bell.
    """

    def __init__(self, connection: redis.asyncio.Redis) -> None:
        self._redis = connection
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def listener(self, *ids: str) -> Iterator[Listener]:
        """A listener for as long as the block lasts."""
        if self._task is None:
            self._task = asyncio.create_task(self._listen(), name="doorbell")
        listener = Listener(ids)
        self._listeners.add(listener)
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        """Stop listening; idempotent."""
        task, self._task = self._task, None
        while task is not None and not task.done():
            task.cancel()
            # Again and again: redis-py swallows a cancellation that comes while it connects.
            await asyncio.wait([task], timeout=_CANCEL_AGAIN_S)

    async def _listen(self) -> None:
        while True:
            try:
                await self._hear_rings()
            except (redis.RedisError, OSError) as error:
                _logger.info("The doorbell is silent, readers poll: %s", type(error).__name__)
                await asyncio.sleep(_RECONNECT_S)

    async def _hear_rings(self) -> None:
        async with self._redis.pubsub(ignore_subscribe_messages=True) as pubsub:
            await pubsub.psubscribe(keys.doorbell("*"))
            while True:
                message = await pubsub.get_message(timeout=_LISTEN_S)
                if message is not None:
                    ids = frozenset(message["data"].decode().split())
                    for listener in self._listeners:
                        listener.hear(ids)
