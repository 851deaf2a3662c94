from __future__ import annotations

import asyncio

from bots.delivery.ledger import Ledger
from workers import keys


async def test_a_message_is_posted_once_and_then_edited(async_redis):
    ledger = Ledger(async_redis, "front")
    first = await ledger.reserve("t__1", 0)
    assert (first.message_id, first.reserved_before) == (None, False)
    await ledger.posted("t__1", 0, "m100")
    again = await Ledger(async_redis, "front").reserve("t__1", 0)
    assert (again.message_id, again.reserved_before) == ("m100", False)


async def test_a_death_between_posting_and_recording_is_seen(async_redis):
    before = await Ledger(async_redis, "front").reserve("t__1", 0)
    after = await Ledger(async_redis, "front").reserve("t__1", 0)
    assert after.reserved_before
    assert after.nonce == before.nonce, "the platform can tell that it is the same message"
    assert len(after.nonce) <= 25


async def test_of_two_who_posted_the_first_counts(async_redis):
    ledger = Ledger(async_redis, "front")
    await ledger.reserve("t__1", 0)
    assert [await ledger.posted("t__1", 0, each) for each in ("m1", "m1", "m2")] == ["m1"] * 3
    assert await ledger.places("t__1") == {0: "m1"}


async def test_only_one_of_many_is_first(async_redis):
    ledger = Ledger(async_redis, "front")
    places = await asyncio.gather(*(ledger.reserve("t__1", 0) for _ in range(30)))
    assert sum(not place.reserved_before for place in places) == 1


async def test_nonces_differ_between_places(async_redis):
    places = [
        await Ledger(async_redis, front).reserve(job, index)
        for front in ("front", "back")
        for job in ("t__1", "t__2")
        for index in (0, 1)
    ]
    assert len({place.nonce for place in places}) == 8


async def test_messages_come_in_order(async_redis):
    ledger = Ledger(async_redis, "front")
    for index in (2, 0, 10, 1):
        await ledger.reserve("t__1", index)
        await ledger.posted("t__1", index, f"m{index}")
    await ledger.reserve("t__1", 11)
    await ledger.finish("t__1")
    assert await ledger.places("t__1") == {0: "m0", 1: "m1", 2: "m2", 10: "m10", 11: None}
    assert await ledger.places("t__2") == {}


async def test_a_shown_end_is_remembered_until_it_expires(async_redis):
    ledger = Ledger(async_redis, "front", ttl_s=300)
    await ledger.reserve("t__1", 0)
    assert not await ledger.finished("t__1")
    await ledger.finish("t__1")
    assert await ledger.finished("t__1")
    assert 0 < await async_redis.ttl(keys.posted("front", "t__1")) <= 300
    await ledger.forget("t__1")
    assert not await ledger.finished("t__1")
