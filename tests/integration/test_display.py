from __future__ import annotations

import asyncio
import itertools

import pytest

from bots.delivery.content import View
from bots.delivery.display import Display, LostLeaseError
from bots.delivery.ledger import Ledger
from bots.delivery.pacing import Budget
from bots.delivery.surface import ExpiredError, GoneError, SlowDownError
from tests.clock import Clock, DrivenClock
from tests.wall import Platform, Wall
from workers.metrics import EDITS

JOB = "t__1"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def platform(clock) -> Platform:
    return Platform(clock, clock.sleep)


async def held() -> None:
    """The lease is ours."""


def views(*texts: str) -> list[View]:
    return [View(text) for text in texts]


async def display(async_redis, wall: Wall, clock: Clock, check_lease=held, **options) -> Display:
    made = Display(JOB, wall, Ledger(async_redis, "front"), check_lease, sleep=clock.sleep, clock=clock, **options)
    await made.load()
    return made


async def test_the_newest_wins_and_edits_keep_their_distance(async_redis):
    clock = DrivenClock()
    platform = Platform(clock, clock.sleep)
    row = await display(async_redis, Wall(platform), clock)
    before = {result: EDITS.labels(result)._value.get() for result in ("sent", "dropped")}
    for number in range(200):
        row.show(views(f"text {number}"))
        await asyncio.sleep(0.001)
        clock.now_s += 0.05
    final = asyncio.create_task(row.finish(views("the end")))
    while not final.done():
        await asyncio.sleep(0.001)
        clock.now_s += 0.05
    times = [at_s for at_s, _ in platform.shown]
    assert platform.texts == ["the end"]
    assert 4 <= len(times) <= 10, "two hundred updates in ten seconds become few edits"
    assert EDITS.labels("sent")._value.get() - before["sent"] == len(times)
    assert EDITS.labels("dropped")._value.get() - before["dropped"] >= 200 - len(times) - 2
    assert all(later - earlier >= 1.2 for earlier, later in itertools.pairwise(times[:-1]))


async def test_the_final_is_tried_until_it_is_shown(async_redis, platform, clock):
    platform.faults = [SlowDownError(7.0), OSError("connection reset"), *[SlowDownError(1.0)] * 20]
    row = await display(async_redis, Wall(platform), clock)
    begun_s = clock.now_s
    await row.finish(views("one", "two"))
    assert platform.texts == ["one", "two"]
    assert clock.now_s - begun_s >= 7.0


async def test_a_final_that_never_goes_out_is_an_error(async_redis, platform, clock):
    platform.faults = [OSError("gone")] * 5
    row = await display(async_redis, Wall(platform), clock)
    with pytest.raises(OSError, match="gone"):
        await row.finish(views("the end"))


async def test_an_edit_on_its_way_does_not_overtake_the_final(async_redis, platform, clock):
    platform.takes_s = 3.0
    row = await display(async_redis, Wall(platform), clock)
    row.show(views("half"))
    while not platform.messages:  # noqa: ASYNC110 - virtual time has no event to wait for
        await asyncio.sleep(0)
    await row.finish(views("whole"))
    assert [text for _, text in platform.shown] == ["half", "whole"]


async def test_what_is_shown_is_not_sent_again(async_redis, platform, clock):
    row = await display(async_redis, Wall(platform), clock)
    await row.finish(views("whole"))
    await row.finish(views("whole"))
    assert len(platform.shown) == 1


async def test_another_process_edits_the_same_messages(async_redis, platform, clock):
    await (await display(async_redis, Wall(platform), clock)).finish(views("one", "two", "three"))
    await (await display(async_redis, Wall(platform), clock)).finish(views("one", "2"))
    assert platform.texts == ["one", "2"], "the message that is too many is deleted"
    assert await Ledger(async_redis, "front").places(JOB) == {0: "m0", 1: "m1"}


async def test_a_death_between_posting_and_recording_makes_no_second_message(async_redis, platform, clock):
    ledger = Ledger(async_redis, "front")
    await Wall(platform).post(View("half"), await ledger.reserve(JOB, 0))
    await (await display(async_redis, Wall(platform), clock)).finish(views("whole"))
    assert platform.texts == ["whole"]


async def test_when_the_way_expires_the_whole_answer_goes_the_other_way(async_redis, platform, clock):
    other = Platform(clock, clock.sleep)
    row = await display(async_redis, Wall(platform, after=Wall(other)), clock)
    row.show(views("ha"))
    while not platform.messages:  # noqa: ASYNC110 - virtual time has no event to wait for
        await asyncio.sleep(0)
    platform.faults = [ExpiredError()]
    await row.finish(views("half", "and half"))
    assert platform.texts == ["ha"]
    assert other.texts == ["half", "and half"]
    again = await display(async_redis, Wall(platform, after=Wall(other)), clock)
    await again.finish(views("half", "and half", "and more"))
    assert other.texts == ["half", "and half", "and more"], "another process goes on there"
    assert platform.texts == ["ha"]


async def test_an_expired_way_without_another_ends(async_redis, platform, clock):
    platform.faults = [ExpiredError()]
    with pytest.raises(GoneError):
        await (await display(async_redis, Wall(platform), clock)).finish(views("whole"))


async def test_a_deleted_message_is_told_by_the_next_call(async_redis, platform, clock):
    row = await display(async_redis, Wall(platform), clock)
    row.show(views("one"))
    while not platform.messages:  # noqa: ASYNC110 - virtual time has no event to wait for
        await asyncio.sleep(0)
    platform.messages.clear()
    with pytest.raises(GoneError):
        await row.finish(views("two"))
    assert platform.texts == []


async def test_without_the_lease_nothing_is_sent(async_redis, platform, clock):
    async def lost() -> None:
        raise LostLeaseError

    row = await display(async_redis, Wall(platform), clock, lost)
    with pytest.raises(LostLeaseError):
        await row.finish(views("stale"))
    assert platform.shown == []


async def test_finals_use_the_reserve_that_edits_leave(async_redis, platform, clock):
    budget = Budget(3, 30.0, reserve=2, clock=clock)
    row = await display(async_redis, Wall(platform, budget=budget), clock)
    row.show(views("half"))
    while not platform.messages:  # noqa: ASYNC110 - virtual time has no event to wait for
        await asyncio.sleep(0)
    begun_s = clock.now_s
    await row.finish(views("whole"))
    assert clock.now_s - begun_s < 5.0


async def test_who_finds_that_another_was_first_takes_back_its_own(async_redis, platform, clock):
    """Two processes post at once: one was frozen between the look at its lease and its call."""
    ledger = Ledger(async_redis, "front")

    class Overtaken(Wall):
        async def post(self, view, place):
            platform.messages["first"] = View("an earlier state")
            await ledger.posted(JOB, place.index, "first")
            return await super().post(view, place)

    await (await display(async_redis, Overtaken(platform), clock)).finish(views("the end"))
    assert platform.messages == {"first": View("the end")}
