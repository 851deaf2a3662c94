from __future__ import annotations

import asyncio
import time
from itertools import pairwise

import pytest
import redis
import redis.asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.valkey import ValkeyProcess
from workers import keys
from workers.contract import Event, ReplyTo, encode
from workers.doorbell import Doorbell, ring
from workers.results import EventStream, TextDecoder, TextWriter, read_text

REPLY = ReplyTo(front_end="term")


def event(number: int) -> Event:
    return Event(type="started", job_id=f"t__{number}", reply=REPLY, at_s=1.0)


async def put(connection: redis.asyncio.Redis, *numbers: int) -> None:
    for number in numbers:
        await connection.xadd(keys.events("term"), {"event": encode(event(number))})


def writer(connection: redis.Redis) -> TextWriter:
    return TextWriter(connection, "chat", ttl_s=100)


async def subscribed(connection: redis.asyncio.Redis) -> None:
    while not await connection.pubsub_numpat():  # noqa: ASYNC110 - another connection of the server is waited for
        await asyncio.sleep(0.01)


# Text


async def test_text_is_read_on_from_any_offset(redis_client: redis.Redis, async_redis: redis.asyncio.Redis) -> None:
    texts = writer(redis_client)
    texts.append("e1", "größe ")
    texts.append("e2", "東")
    texts.flush()
    texts.append("e1", "wächst")
    texts.flush()
    whole = "größe wächst".encode()
    assert texts.length_bytes("e1") == len(whole)
    for offset in range(len(whole) + 1):
        assert await read_text(async_redis, "e1", offset) == whole[offset:]
    assert await read_text(async_redis, "e2", 0) == "東".encode()
    assert await read_text(async_redis, "unknown", 0) == b""
    assert 0 < redis_client.ttl(keys.text("e1")) <= 100


def test_a_write_whose_reply_was_lost_is_repeated_without_doubling(restartable_server: ValkeyProcess) -> None:
    with redis.Redis.from_url(restartable_server.url) as client:
        texts = writer(client)
        texts.append("e1", "one ")
        texts.flush()
        # The next piece reaches the server, and the writer never learns of it.
        client.setrange(keys.text("e1"), 4, b"two ")
        texts.append("e1", "two ")
        restartable_server.sync()
        restartable_server.kill9()
        with pytest.raises(redis.ConnectionError):
            texts.flush()
        restartable_server.start()
        texts.append("e1", "three")
        texts.flush()
        assert client.get(keys.text("e1")) == b"one two three"


def test_text_that_the_server_lost_is_written_again_without_a_hole(redis_client: redis.Redis) -> None:
    texts = writer(redis_client)
    texts.append("e1", "all of it, ")
    texts.flush()
    redis_client.set(keys.text("e1"), b"all")
    texts.append("e1", "again")
    texts.flush()
    assert redis_client.get(keys.text("e1")) == b"all of it, again"


def test_a_forgotten_execution_is_not_written_again(redis_client: redis.Redis) -> None:
    texts = writer(redis_client)
    texts.append("e1", "gone")
    texts.forget("e1")
    texts.flush()
    assert not redis_client.exists(keys.text("e1"))
    assert texts.length_bytes("e1") == 0


@given(text=st.text(min_size=1), cuts=st.lists(st.integers(0, 400)))
def test_bytes_cut_anywhere_become_whole_characters(text: str, cuts: list[int]) -> None:
    data = text.encode()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})
    decoder = TextDecoder()
    told = ""
    for start, end in pairwise(places):
        assert decoder.offset_bytes == start
        told += decoder.feed(data[start:end], final=end == len(data))
        assert text.startswith(told)
    assert told == text


@settings(max_examples=60, deadline=None)
@given(pieces=st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8), data=st.data())
def test_a_reader_of_growing_text_tells_every_character_once(
    server: ValkeyProcess, pieces: list[str], data: st.DataObject
) -> None:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        texts = writer(client)
        decoder = TextDecoder()
        told = ""
        for piece in pieces:
            texts.append("e1", piece)
            texts.flush()
            # Whatever part of it a reader catches, it goes on at the byte it has reached.
            last = data.draw(st.integers(decoder.offset_bytes, decoder.offset_bytes + 60))
            told += decoder.feed(client.getrange(keys.text("e1"), decoder.offset_bytes, last))
            assert "".join(pieces).startswith(told)
        told += decoder.feed(client.getrange(keys.text("e1"), decoder.offset_bytes, -1), final=True)
        assert told == "".join(pieces)


def test_an_unfinished_character_at_the_end_is_replaced_not_swallowed() -> None:
    assert TextDecoder().feed("ö".encode()[:1], final=True) == "\ufffd"


# The doorbell


async def test_the_bell_wakes_whom_it_names_and_nobody_else(
    redis_client: redis.Redis, async_redis: redis.asyncio.Redis
) -> None:
    doorbell = Doorbell(async_redis)
    with doorbell.listener("j1") as named, doorbell.listener("j2") as other:
        await subscribed(async_redis)
        waits = [asyncio.create_task(listener.wait(20.0)) for listener in (named, other)]
        ring(redis_client, "chat", ["j0", "j1"])
        done, pending = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        assert done == {waits[0]}
        for wait in pending:
            wait.cancel()
    await doorbell.close()


async def test_a_silent_bell_ends_the_wait_in_time(async_redis: redis.asyncio.Redis) -> None:
    doorbell = Doorbell(async_redis)
    with doorbell.listener("j1") as listener:
        await asyncio.wait_for(listener.wait(0.05), 20.0)
    await doorbell.close()


async def test_the_bell_is_heard_again_after_an_outage(restartable_server: ValkeyProcess) -> None:
    async with redis.asyncio.Redis.from_url(restartable_server.url) as connection:
        doorbell = Doorbell(connection)
        with doorbell.listener("j1") as listener:
            await subscribed(connection)
            restartable_server.kill9()
            await asyncio.sleep(0.1)
            restartable_server.start()
            heard = asyncio.create_task(listener.wait(60.0))
            started_s = time.monotonic()
            while not heard.done():
                await connection.publish(keys.doorbell("chat"), "j1")
                await asyncio.sleep(0.05)
            assert time.monotonic() - started_s < 50.0
        await doorbell.close()


# Events


async def test_events_come_in_order_once_each_and_are_gone_when_acknowledged(async_redis: redis.asyncio.Redis) -> None:
    stream = EventStream(async_redis, "term", "bot-1")
    await put(async_redis, 1, 2, 3)
    deliveries = await stream.read(block_s=0.05)
    assert [delivery.event for delivery in deliveries] == [event(1), event(2), event(3)]
    assert await stream.read(block_s=0.05) == []
    await stream.ack(*(delivery.entry_id for delivery in deliveries))
    assert await async_redis.xlen(keys.events("term")) == 0
    assert 0 < await async_redis.ttl(keys.events("term")) <= keys.EVENTS_TTL_S


async def test_events_before_the_first_reader_are_not_lost(async_redis: redis.asyncio.Redis) -> None:
    await put(async_redis, 1)
    assert [d.event for d in await EventStream(async_redis, "term", "bot-1").read(block_s=0.05)] == [event(1)]


async def test_a_waiting_reader_gets_an_event_when_it_comes(async_redis: redis.asyncio.Redis) -> None:
    reading = asyncio.create_task(EventStream(async_redis, "term", "bot-1").read(block_s=30.0))
    await asyncio.sleep(0.1)
    await put(async_redis, 1)
    assert [d.event for d in await asyncio.wait_for(reading, 20.0)] == [event(1)]


async def test_after_a_restart_what_was_not_acknowledged_comes_first(async_redis: redis.asyncio.Redis) -> None:
    await put(async_redis, *range(5))
    before = await EventStream(async_redis, "term", "bot-1").read(block_s=0.05)
    assert len(before) == 5
    await EventStream(async_redis, "term", "bot-1").ack(before[1].entry_id)
    await put(async_redis, 5)

    after = EventStream(async_redis, "term", "bot-1")
    again = [await after.read(count=3, block_s=0.05) for _ in range(3)]
    assert [[d.event.job_id for d in part] for part in again] == [["t__0", "t__2", "t__3"], ["t__4"], ["t__5"]]


async def test_a_dead_consumers_events_are_taken_over(async_redis: redis.asyncio.Redis) -> None:
    await put(async_redis, 1, 2)
    assert len(await EventStream(async_redis, "term", "dead").read(block_s=0.05)) == 2
    assert await EventStream(async_redis, "term", "alive", claim_after_s=60).read(block_s=0.05) == []
    await asyncio.sleep(0.05)
    heir = EventStream(async_redis, "term", "heir", claim_after_s=0.02)
    assert [d.event for d in await heir.read(block_s=0.05)] == [event(1), event(2)]


async def test_two_consumers_share_the_events(async_redis: redis.asyncio.Redis) -> None:
    await put(async_redis, *range(6))
    first, second = EventStream(async_redis, "term", "a"), EventStream(async_redis, "term", "b")
    told = [d.event.job_id for d in [*await first.read(count=3), *await second.read(count=3)]]
    assert told == [f"t__{number}" for number in range(6)]


@pytest.mark.parametrize(
    "fields",
    [
        {"event": b"no json"},
        {"event": b'{"v": 99, "type": "started"}'},
        {"event": b"\xff\xfe"},
        {"other": b"field"},
    ],
)
async def test_a_malformed_event_is_put_aside_and_stops_nobody(
    async_redis: redis.asyncio.Redis, fields: dict[str, bytes]
) -> None:
    await async_redis.xadd(keys.events("term"), fields)
    await put(async_redis, 1)
    stream = EventStream(async_redis, "term", "bot-1")
    deliveries = await stream.read(block_s=0.05)
    assert [d.event for d in deliveries] == [event(1)]
    assert await async_redis.llen(keys.rejected()) == 1
    await stream.ack(deliveries[0].entry_id)
    assert await EventStream(async_redis, "term", "bot-1").read(block_s=0.05) == []


async def test_pending_events_that_were_trimmed_are_dropped(async_redis: redis.asyncio.Redis) -> None:
    await put(async_redis, 1, 2)
    await EventStream(async_redis, "term", "bot-1").read(block_s=0.05)
    await async_redis.xtrim(keys.events("term"), maxlen=1, approximate=False)
    assert [d.event for d in await EventStream(async_redis, "term", "bot-1").read(block_s=0.05)] == [event(2)]


async def test_a_stream_that_expired_is_begun_again(async_redis: redis.asyncio.Redis) -> None:
    stream = EventStream(async_redis, "term", "bot-1")
    assert await stream.read(block_s=0.05) == []
    await async_redis.flushall()
    await put(async_redis, 1)
    told = [*await stream.read(block_s=0.05), *await stream.read(block_s=0.05)]
    assert [d.event for d in told] == [event(1)]


@pytest.mark.kill
async def test_events_survive_a_kill_of_the_server(restartable_server: ValkeyProcess) -> None:
    async with redis.asyncio.Redis.from_url(restartable_server.url) as connection:
        stream = EventStream(connection, "term", "bot-1")
        await put(connection, 1, 2)
        first = await stream.read(block_s=0.05)
        await stream.ack(first[0].entry_id)
        restartable_server.sync()
        restartable_server.kill9()
        with pytest.raises(redis.ConnectionError):
            await stream.read(block_s=0.05)
        restartable_server.start()
        assert await stream.read(block_s=0.05) == []  # still delivered to this process, which lives
        again = await EventStream(connection, "term", "bot-1").read(block_s=0.05)
        assert [d.event for d in again] == [event(2)]
