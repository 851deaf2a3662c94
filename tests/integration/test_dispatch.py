"""Deliveries over a real server and a real worker; what dies here are dispatches, as if their process had."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest
import redis.asyncio

from bots.conversation import Conversations
from bots.delivery import dispatch, wording
from bots.delivery.dispatch import Dispatch
from bots.delivery.ledger import Ledger
from bots.delivery.promises import Promise, Promises
from bots.delivery.surface import GoneError
from bots.first_contact import FirstContacts
from bots.request_records import RequestRecords
from bots.service import ChatService, Prompt, Refusal
from bots.settings import ConversationSettings
from tests.engines import answer
from tests.valkey import ValkeyProcess
from tests.wall import Platform, Wall
from tests.worker_processes import config, worker
from workers import keys
from workers.client import Client
from workers.contract import ReplyTo
from workers.errors import RedisUnavailableError, RefusedError
from workers.metrics import REGISTRY
from workers.results import GROUP, EventStream
from workers.settings import LimitSettings, Rate, WorkerSettings

FRONT = "front"
LAGS = "palaver_delivery_lag_seconds_count"
LEASE_S = 1.0
LIMITS = LimitSettings(user=Rate(per_minute=1_000, burst=100))


def prompt(key: str = "k1", **orders: object) -> Prompt:
    text = json.dumps(orders)
    return Prompt("front", "t1", "c1", "u1", f"talk-{key}", key, text, ReplyTo(front_end=FRONT, handle={"wall": "w"}))


class Front:
    """One process of the front-end."""

    def __init__(self, url: str, platform: Platform, limit: int = 2_000, disclosure: str = "") -> None:
        self.redis = redis.asyncio.Redis.from_url(url)
        self._sync = redis.Redis.from_url(url)
        self.client = Client(self.redis, self._sync, LIMITS, WorkerSettings())
        no = Refusal("rule", "No questions about that.")
        rules = [lambda asked: no if "forbidden" in asked.text else None]
        service = ChatService(self.client, Conversations(self.redis, ConversationSettings()), rules)
        self.ended: list[str] = []
        self.dispatch = Dispatch(
            service,
            self.client,
            RequestRecords(self.redis),
            Promises(self.redis, FRONT, lease_s=LEASE_S),
            Ledger(self.redis, FRONT),
            EventStream(self.redis, FRONT, str(id(self)), claim_after_s=1.0),
            lambda job_id, reply: Wall(platform, limit) if reply.handle else None,
            self._on_end,
            FirstContacts(self.redis),
            disclosure,
        )
        self._task = asyncio.create_task(self.dispatch.run())

    async def _on_end(self, promise: Promise, event: object) -> None:
        self.ended.append(promise.job_id)

    async def die(self) -> None:
        """Stop at once, letting go of nothing."""
        await dispatch.end_tasks([self._task, *self.dispatch._loops, *self.dispatch._running.values()])
        await self.client.close()

    async def close(self) -> None:
        await self.dispatch.close()
        await self.client.close()


@pytest.fixture
def platform() -> Platform:
    return Platform()


@pytest.fixture
async def start(server, platform):
    fronts: list[Front] = []

    def begin(**options: Any) -> Front:
        fronts.append(Front(server.url, platform, **options))
        return fronts[-1]

    yield begin
    for front in fronts:
        await front.close()


async def until(condition, what: str) -> None:
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - other processes have no event to wait for
            await asyncio.sleep(0.05)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def told(*fronts: Front, count: int = 1):
    async def enough() -> bool:
        return sum(len(front.ended) for front in fronts) >= count

    return enough


async def kept(front: Front, *jobs: str) -> None:
    ledger = Ledger(front.redis, FRONT)

    async def all_finished() -> bool:
        return all([await ledger.finished(job) for job in jobs])

    await until(all_finished, "final messages")


async def test_who_asks_for_the_first_time_reads_that_a_machine_answers(server, start, platform):
    said = "I am a machine."
    front = start(disclosure=said)
    with pytest.raises(RefusedError):
        await front.dispatch.ask(replace(prompt("k0"), text="something forbidden"))
    await front.dispatch.decline("t1__k0", saying())
    with worker(config(server.url)):
        for key, user in (("k1", "u1"), ("k2", "u1"), ("k3", "u2")):
            assert await front.dispatch.ask(replace(prompt(key, tokens=20), user=user))
            assert not await front.dispatch.ask(replace(prompt(key, tokens=20), user=user)), "the same event again"
            await kept(front, f"t1__{key}")
        platform_texts = list(platform.texts)
        assert [text.endswith(f"\n\n{said}") for text in platform_texts] == [True, False, True]
        await FirstContacts(front.redis).forget("front", "u1")
        assert await front.dispatch.ask(prompt("k4", tokens=40, step_s=0.05))
        await front.die()  # whoever takes it over says it as well
        other = start(disclosure=said)
        await kept(other, "t1__k4")
    assert platform.texts[-1].endswith(said)
    assert sum(said in text for text in platform.texts) == 3


async def test_an_answer_grows_and_ends_in_its_message(server, start, platform):
    front = start()
    admitted, lags = counted("palaver_admissions_total", kind="chat", outcome="admitted"), counted(LAGS)
    orders = {"tokens": 60, "step_s": 0.05}
    with worker(config(server.url)):
        assert await front.dispatch.ask(prompt(**orders))
        await kept(front, "t1__k1")
    assert platform.texts == [answer(json.dumps(orders), 60).strip()]
    assert len(platform.shown) >= 3, "the message grew"
    (view,) = platform.messages.values()
    assert view.complete
    assert not view.buttons
    assert counted("palaver_admissions_total", kind="chat", outcome="admitted") == admitted + 1
    assert counted(LAGS) == lags + 1


async def saying(heard: bool = True) -> bool:
    """Tells an author that a prompt is not taken."""
    return heard


async def fail_to_submit(front: Front, key: str) -> None:
    """The prompt is promised, and Redis goes away before its job is in the queue."""

    async def submit(request: object) -> None:
        raise RedisUnavailableError("gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(front.client, "submit", submit)
        with pytest.raises(RedisUnavailableError):
            await front.dispatch.ask(prompt(key, tokens=5))


async def test_a_prompt_that_was_cut_off_half_way_can_be_asked_again(server, start, platform):
    front, other = start(), start()
    await fail_to_submit(front, "k1")
    await asyncio.sleep(2 * LEASE_S)  # its lease is renewed meanwhile: the other one does not take it for lost
    assert await front.dispatch.ask(prompt("k1", tokens=5)), "it is new to the queue, although it was promised before"
    assert not await other.dispatch.ask(prompt("k1", tokens=5))
    with worker(config(server.url)):
        await kept(front, "t1__k1")
    assert platform.texts == [answer(json.dumps({"tokens": 5}), 5).strip()]


async def test_a_prompt_that_was_given_up_is_not_said_to_be_lost_as_well(start, platform):
    front, other = start(), start()
    await fail_to_submit(front, "k1")
    await front.dispatch.decline("t1__k1", saying())
    await asyncio.sleep(2 * LEASE_S)
    assert platform.texts == []
    assert await front.redis.zcard(keys.promises(FRONT)) == 0
    assert other.dispatch.in_delivery == 0


async def test_somebody_who_could_not_be_told_is_told_later(start, platform):
    front = start()
    await fail_to_submit(front, "k1")
    with pytest.raises(RefusedError):
        await front.dispatch.ask(prompt("k2", note="forbidden"))
    for job_id in ("t1__k1", "t1__k2"):  # the platform does not take the words that say why not
        await front.dispatch.decline(job_id, saying(heard=False))
    await kept(front, "t1__k1", "t1__k2")
    assert platform.texts == [wording.LOST] * 2


async def test_an_event_that_comes_again_is_no_second_prompt_once_it_was_declined(start, platform):
    front, other = start(), start()
    await fail_to_submit(front, "k1")
    repeated: list[bool] = []

    async def tell() -> bool:
        repeated.append(await front.dispatch.ask(prompt("k1", tokens=5)))
        return True

    await front.dispatch.decline("t1__k1", tell())
    repeated += [await each.dispatch.ask(prompt("k1", tokens=5)) for each in (front, other)]
    assert repeated == [False] * 3
    assert not await front.client.known("t1__k1")


async def test_a_refusal_that_a_process_could_not_tell_any_more_is_told_by_another(start, platform):
    first = start()
    with pytest.raises(RefusedError):
        await first.dispatch.ask(prompt(note="forbidden"))
    await first.die()
    second = start()
    await kept(second, "t1__k1")
    assert platform.texts == [wording.LOST]


async def test_a_prompt_is_answered_although_redis_has_forgotten_everything(platform):
    valkey = ValkeyProcess(persist=False).start()
    front = Front(valkey.url, platform)
    try:
        await front.dispatch.ask(prompt(tokens=5))
        valkey.kill9()
        valkey.start()
        await asyncio.sleep(2 * LEASE_S)  # the lease is renewed meanwhile, of a promise that is no more
        with worker(config(valkey.url)):
            await kept(front, "t1__k1")
        assert platform.texts == [answer(json.dumps({"tokens": 5}), 5).strip()]
    finally:
        await front.close()
        valkey.remove()


async def test_a_waiting_prompt_shows_its_place_and_a_way_to_stop(start, platform):
    front = start()
    await front.dispatch.ask(prompt("k1"))
    await front.dispatch.ask(prompt("k2"))

    async def told() -> bool:
        return any("1 before" in text for text in platform.texts) and any("Next" in text for text in platform.texts)

    await until(told, "places in the queue")
    assert all(view.buttons[0].action == "stop" for view in platform.messages.values())
    for key in ("k1", "k2"):
        await front.client.cancel(f"t1__{key}", "u1")
    await kept(front, "t1__k1", "t1__k2")
    assert platform.texts == [wording.STOPPED] * 2


async def test_the_same_event_twice_is_answered_once_by_one_process(server, start, platform):
    fronts = [start(), start()]
    with worker(config(server.url)):
        took = await asyncio.gather(*(front.dispatch.ask(prompt(tokens=20)) for front in fronts for _ in range(5)))
        assert sum(took) == 1
        await kept(fronts[0], "t1__k1")
        assert not await fronts[1].dispatch.ask(prompt(tokens=20)), "a late repetition is known as well"
    assert len(platform.messages) == 1


async def test_another_process_finishes_what_a_dead_one_began(server, start, platform):
    first = start()
    orders = {"tokens": 100, "step_s": 0.05}
    with worker(config(server.url)):
        await first.dispatch.ask(prompt(**orders))

        async def some_text() -> bool:
            return any("0" in text for text in platform.texts)

        await until(some_text, "the first text")
        await first.die()
        second = start()
        await kept(second, "t1__k1")
    assert platform.texts == [answer(json.dumps(orders), 100).strip()], "in the same message"
    await until(told(second), "the end")
    assert second.ended == ["t1__k1"]


async def test_two_processes_never_deliver_one_job(server, start, platform):
    fronts = [start(), start(), start()]
    with worker(config(server.url)):
        jobs = [prompt(f"k{number}", tokens=30, step_s=0.02) for number in range(12)]
        await asyncio.gather(*(fronts[number % 3].dispatch.ask(job) for number, job in enumerate(jobs)))
        await kept(fronts[0], *(job.job_id for job in jobs))
    assert len(platform.messages) == 12
    await until(told(*fronts, count=12), "the ends")
    assert sorted(job for front in fronts for job in front.ended) == sorted(job.job_id for job in jobs)


async def test_events_are_acknowledged_after_the_final_message(server, start, platform):
    front = start()
    with worker(config(server.url)):
        await front.dispatch.ask(prompt(tokens=5))
        await kept(front, "t1__k1")

        async def all_acknowledged() -> bool:
            pending = await front.redis.xpending(keys.events(FRONT), GROUP)
            return pending["pending"] == 0 and await front.redis.xlen(keys.events(FRONT)) == 0

        await until(all_acknowledged, "acknowledgements")


async def test_a_promise_that_redis_forgot_is_kept_by_its_event(server, start, platform):
    first = start()
    with worker(config(server.url)):
        await first.dispatch.ask(prompt(tokens=50, step_s=0.02))
        await first.die()
        await first.redis.delete(keys.promises(FRONT), keys.promise(FRONT, "t1__k1"))
        second = start()
        await kept(second, "t1__k1")
    assert platform.texts == [answer(json.dumps({"tokens": 50, "step_s": 0.02}), 50).strip()]


async def test_a_promise_without_a_job_ends_with_a_clear_word(start, platform):
    first = start()
    await first.dispatch._promises.take("t1__k1", prompt().reply)  # and dies before it submits
    await first.die()
    second = start()
    await kept(second, "t1__k1")
    assert platform.texts == [wording.LOST]


async def test_a_refused_prompt_promises_nothing(start, platform):
    front = start()
    with pytest.raises(RefusedError, match="No questions"):
        await front.dispatch.ask(prompt(note="forbidden"))
    await front.dispatch.decline("t1__k1", saying())
    assert platform.messages == {}
    assert await front.redis.keys("palaver:promise*") == []


async def test_a_deleted_message_stops_the_job(server, start, platform):
    front = start()
    with worker(config(server.url)):
        await front.dispatch.ask(prompt(tokens=5_000, step_s=0.02))

        async def some_text() -> bool:
            return any("0" in text for text in platform.texts)

        await until(some_text, "the first text")
        platform.messages.clear()
        await kept(front, "t1__k1")

        async def stopped() -> bool:
            return await front.redis.hget(keys.live("t1__k1"), "state") == b"cancelled"

        await until(stopped, "the stop")
    assert platform.texts == []


async def test_nobody_may_write_there(start, platform):
    platform.faults = [GoneError("missing permission")] * 3
    front = start()
    await front.dispatch.ask(prompt())
    await kept(front, "t1__k1")
    assert platform.texts == []
    assert await front.redis.hget(keys.live("t1__k1"), "state") == b"cancelled"


async def test_a_failed_delivery_is_taken_up_again(server, start, platform, monkeypatch):
    monkeypatch.setattr("bots.delivery.dispatch._FAILURE_PAUSE_S", 0.2)
    front = start()
    platform.faults = [RuntimeError("the platform is down")] * 6
    monkeypatch.setattr("bots.delivery.display._LONGEST_PAUSE_S", 0.01)
    with worker(config(server.url)):
        await front.dispatch.ask(prompt(tokens=3))
        await kept(front, "t1__k1")
    assert len(platform.texts) == 1


async def test_failures_say_why(server, start, platform):
    front = start()
    with worker(config(server.url)):
        await front.dispatch.ask(prompt(tokens=3, refuse="invalid_request"))
        await kept(front, "t1__k1")
    assert platform.texts == ["It did not work."]


async def test_a_long_answer_continues_in_further_messages(server, start, platform):
    front = start(limit=200)
    with worker(config(server.url)):
        await front.dispatch.ask(prompt(tokens=120, step_s=0.01))
        await kept(front, "t1__k1")
    assert len(platform.texts) > 3
    assert all(len(text) <= 200 for text in platform.texts)
    whole = answer(json.dumps({"tokens": 120, "step_s": 0.01}), 120)
    assert "".join(platform.texts).replace(" ", "") == whole.replace(" ", "")


async def test_a_closed_process_lets_go_at_once(server, start, platform):
    first = start()
    with worker(config(server.url)):
        await first.dispatch.ask(prompt(tokens=40, step_s=0.05))
        await first.close()
        second = start()
        await kept(second, "t1__k1")
    assert len(platform.texts) == 1
