from __future__ import annotations

import asyncio

from bots.delivery.ledger import Ledger
from bots.delivery.promises import Promise, Promises
from workers import keys
from workers.contract import ReplyTo

REPLY = ReplyTo(front_end="front", handle={"channel": "7"})
LEASE_S = 0.3


def promises(async_redis) -> Promises:
    return Promises(async_redis, "front", lease_s=LEASE_S)


async def test_only_one_of_many_processes_takes_a_job(async_redis):
    took = await asyncio.gather(*(promises(async_redis).take("t__1", REPLY) for _ in range(20)))
    assert sum(took) == 1


async def test_the_same_process_takes_a_repeated_event_once(async_redis):
    mine = promises(async_redis)
    assert await mine.take("t__1", REPLY)
    assert not await mine.take("t__1", REPLY)


async def test_a_renewed_lease_keeps_others_away_and_one_that_ran_out_does_not(async_redis):
    mine, other = promises(async_redis), promises(async_redis)
    await mine.take("t__1", REPLY)
    for _ in range(4):
        await asyncio.sleep(LEASE_S / 3)
        assert await mine.renew(["t__1"]) == set()
        assert await other.adopt() == []
    await asyncio.sleep(LEASE_S * 1.5)
    assert await other.adopt() == [Promise("t__1", REPLY)]
    assert await mine.renew(["t__1"]) == {"t__1"}, "the first owner is told"
    assert await other.renew(["t__1"]) == set()


async def test_a_lease_that_ran_out_is_renewed_if_nobody_wanted_it(async_redis):
    mine = promises(async_redis)
    await mine.take("t__1", REPLY)
    await asyncio.sleep(LEASE_S * 1.5)
    assert await mine.renew(["t__1"]) == set()
    assert await promises(async_redis).adopt() == []


async def test_a_kept_promise_is_never_taken_again(async_redis):
    mine, other = promises(async_redis), promises(async_redis)
    await mine.take("t__1", REPLY)
    assert await mine.keep("t__1")
    assert not await mine.keep("t__1")
    assert await Ledger(async_redis, "front").finished("t__1")
    await asyncio.sleep(LEASE_S * 1.5)
    assert not await other.take("t__1", REPLY)
    assert await other.adopt() == []
    assert await async_redis.keys("palaver:promise*") == []


async def test_only_whose_promise_it_is_by_now_may_say_that_it_is_kept(async_redis):
    """Or the one that took over, and shows an earlier state, would be stopped half-way."""
    late, taker = promises(async_redis), promises(async_redis)
    await late.take("t__1", REPLY)
    await asyncio.sleep(LEASE_S * 1.5)
    assert await taker.adopt() == [Promise("t__1", REPLY)]
    assert not await late.keep("t__1")
    assert not await Ledger(async_redis, "front").finished("t__1")
    assert await taker.renew(["t__1"]) == set()
    assert await taker.keep("t__1")


async def test_what_redis_has_forgotten_is_promised_anew_and_what_another_has_is_not(async_redis):
    mine, other = promises(async_redis), promises(async_redis)
    await mine.take("t__1", REPLY)
    await other.take("t__2", REPLY)
    await async_redis.delete(keys.promises("front"), keys.promise("front", "t__1"))
    assert await mine.take("t__1", REPLY, forgotten=True)
    assert not await mine.take("t__2", REPLY, forgotten=True), "whether its lease has run out or not"


async def test_a_postponed_promise_is_free_after_its_pause(async_redis):
    mine, other = promises(async_redis), promises(async_redis)
    await mine.take("t__1", REPLY)
    await mine.postpone("t__1", 0.0)
    assert await other.adopt() == [Promise("t__1", REPLY)]


async def test_what_has_expired_is_cleared_away(async_redis):
    mine = promises(async_redis)
    await mine.take("t__1", REPLY)
    await mine.postpone("t__1", 0.0)
    await async_redis.delete(keys.promise("front", "t__1"))
    assert await promises(async_redis).adopt() == []
    assert await async_redis.zcard(keys.promises("front")) == 0
