"""How answers travel back: growing text by key, lifecycle events by stream.

Text of one execution (one attempt of a job) lies under ``keys.text``. The worker writes it at byte offsets, which is
idempotent when a write is repeated after a lost reply; a reader resumes at the offset it has reached.

Events of one front-end lie in a stream with a consumer group. What a front-end has not acknowledged is delivered to
it again after a restart, and what a vanished consumer left is claimed by the next one.
"""

from __future__ import annotations

import codecs
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import ResponseError

from workers import keys, scripts
from workers.contract import Event, decode_event
from workers.doorbell import ring
from workers.errors import ContractError

GROUP = "front-end"
#: Consumers that have not asked for so long are gone for good.
CONSUMER_IDLE_S = 86_400.0

_logger = logging.getLogger("palaver.results")


@dataclass(slots=True)
class _Text:
    """An answer as far as the engine has told it, and how much of that Redis has."""

    data: bytearray = field(default_factory=bytearray)
    written_bytes: int = 0


class TextWriter:
    """Writes the growing texts of many executions, a pipeline at a time.

    The whole text stays in memory until ``forget``, so that a server that lost its last seconds at a power failure is
    given the answer again from the start instead of a text with a hole.

    Args:
        connection: Client that returns bytes.
        kind: Kind of the jobs, which names the doorbell.
        ttl_s: Seconds a text can be read after it last grew.
    """

    def __init__(self, connection: redis.Redis, kind: str, ttl_s: int) -> None:
        self._redis = connection
        self._kind = kind
        self._ttl_s = ttl_s
        self._texts: dict[str, _Text] = {}
        self._grown: set[str] = set()

    def append(self, execution_id: str, text: str) -> None:
        """Take new text; nothing is written before ``flush``."""
        if text:
            self._texts.setdefault(execution_id, _Text()).data += text.encode("utf-8", errors="replace")
            self._grown.add(execution_id)

    def length_bytes(self, execution_id: str) -> int:
        """Length of the whole text so far, in UTF-8 bytes."""
        text = self._texts.get(execution_id)
        return len(text.data) if text else 0

    def rewrite(self, execution_id: str) -> None:
        """Have the next ``flush`` write the whole text again, because the server has lost some of it."""
        text = self._texts.get(execution_id)
        if text is not None and text.data:
            text.written_bytes = 0
            self._grown.add(execution_id)

    def forget(self, execution_id: str) -> None:
        """Drop an execution that has ended."""
        self._texts.pop(execution_id, None)
        self._grown.discard(execution_id)

    def flush(self) -> None:
        """Write everything that is new and ring the bell.

        Raises:
            redis.RedisError: Nothing is lost: the next ``flush`` writes the same bytes at the same place.
        """
        torn = self._write_grown()
        if torn:
            _logger.warning("The server has lost text of %d executions; it is written again.", len(torn))
            for execution_id in torn:
                self.rewrite(execution_id)
            self._write_grown()

    def _write_grown(self) -> list[str]:
        """Write once; returns the executions whose text in Redis is shorter than what was written before."""
        batch = [(execution_id, self._texts[execution_id]) for execution_id in self._grown]
        if not batch:
            return []
        script = scripts.load("write_text")
        with self._redis.pipeline(transaction=False) as pipeline:
            for execution_id, text in batch:
                piece = bytes(text.data[text.written_bytes :])
                script.queue(pipeline, [keys.text(execution_id)], [text.written_bytes, piece, self._ttl_s])
            ring(pipeline, self._kind, [execution_id for execution_id, _ in batch])
            written = pipeline.execute()
        torn = []
        for (execution_id, text), complete in zip(batch, written[:-1], strict=True):
            if complete:
                text.written_bytes = len(text.data)
                self._grown.discard(execution_id)
            else:
                torn.append(execution_id)
        return torn


async def read_text(connection: redis.asyncio.Redis, execution_id: str, offset_bytes: int) -> bytes:
    """What an execution has written from an offset on.

    Args:
        connection: Client that returns bytes.
        execution_id: Whose text.
        offset_bytes: Where to begin, 0 for the start.

    Returns:
        UTF-8 bytes, possibly ending in the middle of a character: decode them with ``TextDecoder``.
    """
    data = await connection.getrange(keys.text(execution_id), offset_bytes, -1)
    return bytes(data)  # type: ignore[arg-type]  # the client is typed for both kinds of responses


class TextDecoder:
    """Turns bytes read in arbitrary pieces into whole characters.

    Attributes:
        offset_bytes: Where the next piece begins: all bytes fed so far, those of an unfinished character included.
    """

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.offset_bytes = 0

    def feed(self, data: bytes, final: bool = False) -> str:
        """Take the next bytes; returns the characters that they complete.

        Args:
            data: The bytes from ``offset_bytes`` on.
            final: Whether no more will follow; an unfinished character then becomes U+FFFD.
        """
        self.offset_bytes += len(data)
        return self._decoder.decode(data, final)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An event and the id under which to acknowledge it."""

    entry_id: str
    event: Event


class EventStream:
    """One consumer of a front-end's events; each event is delivered until it is acknowledged.

    A consumer that comes back under its name first gets what it had not acknowledged. Entries of consumers that have
    been silent for ``claim_after_s`` are taken over.

    Args:
        connection: Client that returns bytes.
        front_end: Whose stream.
        consumer: Name of this process; must be stable over restarts and unique among those that run.
        claim_after_s: Seconds after which another consumer's unacknowledged event is taken over; longer than any
            delivery takes.
    """

    def __init__(
        self, connection: redis.asyncio.Redis, front_end: str, consumer: str, claim_after_s: float = 120.0
    ) -> None:
        self._redis = connection
        self._stream = keys.events(front_end)
        self._consumer = consumer
        self._claim_after_ms = int(claim_after_s * 1000)
        self._claim_cursor = "0-0"
        self._next_claim_s = 0.0
        self._ready = False
        # Where reading of this consumer's own unacknowledged entries goes on; None once all were delivered.
        self._backlog_cursor: str | None = "0"

    async def read(self, count: int = 64, block_s: float = 2.0) -> list[Delivery]:
        """The next events: this consumer's unacknowledged ones first, then abandoned ones, then new ones.

        Args:
            count: Most events to return, at least 1.
            block_s: Longest wait for a new event; shorter than the connection's socket timeout.

        Returns:
            Events in the order of the stream; empty when none came in time.
        """
        try:
            await self._prepare()
            entries = await self._backlog(count) or await self._abandoned(count)
            if not entries:
                entries = await self._fresh(count, block_s)
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
            # The stream expired or the database was emptied: begin again with an empty one.
            self._ready, self._backlog_cursor = False, "0"
            return []
        return await self._decoded(entries)

    async def ack(self, *entry_ids: str) -> None:
        """Events are done with: they are removed from the stream and never delivered again."""
        if entry_ids:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.xack(self._stream, GROUP, *entry_ids)
                pipeline.xdel(self._stream, *entry_ids)
                await pipeline.execute()

    async def close(self) -> None:
        """Leave the group, unless this consumer has events that it did not acknowledge: then they would be lost."""
        await self._forget_consumers(lambda name, _: name == self._consumer)

    async def _forget_consumers(self, which: Callable[[str, float], bool]) -> None:
        """Remove consumers without unacknowledged events, chosen by name and idle seconds."""
        for consumer in await self._redis.xinfo_consumers(self._stream, GROUP):
            name = consumer["name"].decode()
            if not consumer["pending"] and which(name, consumer["idle"] / 1000):
                await self._redis.xgroup_delconsumer(self._stream, GROUP, name)

    async def _prepare(self) -> None:
        if not self._ready:
            try:
                await self._redis.xgroup_create(self._stream, GROUP, id="0", mkstream=True)
            except ResponseError as error:
                if not str(error).startswith("BUSYGROUP"):
                    raise
            # Names of processes that were killed.
            await self._forget_consumers(lambda _, idle_s: idle_s > CONSUMER_IDLE_S)
            self._ready = True
        await self._redis.expire(self._stream, keys.EVENTS_TTL_S)

    async def _backlog(self, count: int) -> list[tuple[bytes, Any]]:
        if self._backlog_cursor is None:
            return []
        reply = await self._redis.xreadgroup(GROUP, self._consumer, {self._stream: self._backlog_cursor}, count=count)
        entries = _entries(reply)
        self._backlog_cursor = entries[-1][0].decode() if entries else None
        return entries

    async def _abandoned(self, count: int) -> list[tuple[bytes, Any]]:
        if time.monotonic() < self._next_claim_s:
            return []
        reply = await self._redis.xautoclaim(
            self._stream, GROUP, self._consumer, self._claim_after_ms, self._claim_cursor, count=count
        )
        self._claim_cursor = reply[0].decode()
        if self._claim_cursor == "0-0":
            # The whole list has been looked at; doing so again is pointless before something can have become old.
            self._next_claim_s = time.monotonic() + self._claim_after_ms / 2000
        return list(reply[1])

    async def _fresh(self, count: int, block_s: float) -> list[tuple[bytes, Any]]:
        block_ms = max(1, int(block_s * 1000))
        reply = await self._redis.xreadgroup(GROUP, self._consumer, {self._stream: ">"}, count=count, block=block_ms)
        return _entries(reply)

    async def _decoded(self, entries: list[tuple[bytes, Any]]) -> list[Delivery]:
        deliveries = []
        for raw_id, fields in entries:
            entry_id = raw_id.decode()
            if not fields:  # trimmed away while it was pending
                await self.ack(entry_id)
                continue
            try:
                deliveries.append(Delivery(entry_id, decode_event(fields.get(b"event", b""))))
            except ContractError as error:
                _logger.warning("Event %s was put aside: %s", entry_id, error)
                await self._reject(entry_id, fields)
        return deliveries

    async def _reject(self, entry_id: str, fields: dict[bytes, bytes]) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.lpush(keys.rejected(), fields.get(b"event", b"") or entry_id)
            pipeline.ltrim(keys.rejected(), 0, keys.REJECTED_KEPT - 1)
            pipeline.xack(self._stream, GROUP, entry_id)
            pipeline.xdel(self._stream, entry_id)
            await pipeline.execute()


def _entries(reply: Any) -> list[tuple[bytes, Any]]:
    """The entries of the one stream that was asked for, in either shape that the client returns."""
    if not reply:
        return []
    if isinstance(reply, dict):
        (batches,) = reply.values()
        return [entry for batch in batches for entry in batch]
    return list(reply[0][1])
