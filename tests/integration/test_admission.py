from __future__ import annotations

import asyncio
import math
import time
from fractions import Fraction

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workers import admission, keys, scripts
from workers.admission import Admitted, Allowance, Duplicate, Limit, admit, admit_now, refund
from workers.errors import RefusedError

MINUTE_US = 60_000_000


def limit(name: str = "user", per_minute: float = 6, burst: float = 5, cost: float = 1, owner: str = "1") -> Limit:
    """By default one unit comes back every 10 s, so that nothing recovers while a test runs."""
    return Limit(keys.limit("chat", name, owner), Allowance(name, per_minute, burst), cost)


def limit_keys(client: redis.Redis) -> set[bytes]:
    return set(client.scan_iter(keys.limit("chat", "*", "*")))


def spend(client: redis.Redis, limits: list[Limit], prefix: str = "a") -> int:
    """Admissions until the first refusal."""
    for number in range(1_000):
        try:
            admit_now(client, f"{prefix}__{number}", limits)
        except RefusedError:
            return number
    raise AssertionError("never refused")


async def test_a_job_is_admitted_once(async_redis: redis.asyncio.Redis, redis_client: redis.Redis) -> None:
    assert await admit(async_redis, "a__0", [limit()]) == Admitted("a__0")
    for _ in range(10):
        assert await admit(async_redis, "a__0", [limit()]) == Duplicate("a__0")
    assert spend(redis_client, [limit()], "b") == 4


async def test_many_at_once_are_admitted_up_to_the_burst(async_redis: redis.asyncio.Redis) -> None:
    replies = await asyncio.gather(
        *(admit(async_redis, f"a__{i}", [limit()]) for i in range(30)), return_exceptions=True
    )
    assert sum(isinstance(reply, Admitted) for reply in replies) == 5
    assert sum(isinstance(reply, RefusedError) for reply in replies) == 25


def test_a_refusal_charges_nothing_anywhere(redis_client: redis.Redis) -> None:
    """One user who hammers does not use up the guild's budget."""
    guild, user = limit("tenant", burst=20), limit("user", burst=5)
    assert spend(redis_client, [guild, user]) == 5
    for attempt in range(100):
        with pytest.raises(RefusedError, match="user limit"):
            admit_now(redis_client, f"a__again{attempt}", [guild, user])
    assert spend(redis_client, [guild], "b") == 15


def test_the_refusal_names_the_limit_that_takes_longest(redis_client: redis.Redis) -> None:
    fast, slow = limit("user", per_minute=60, burst=1), limit("tenant", per_minute=1, burst=1)
    admit_now(redis_client, "a__0", [fast, slow])
    with pytest.raises(RefusedError, match="tenant limit is used up") as caught:
        admit_now(redis_client, "a__1", [fast, slow])
    assert caught.value.limit == "tenant"
    assert 55 < caught.value.retry_after_s <= 60


def test_coming_back_after_retry_after_is_admitted(redis_client: redis.Redis) -> None:
    quick = limit(per_minute=600, burst=2)
    admit_now(redis_client, "a__0", [quick])
    admit_now(redis_client, "a__1", [quick])
    with pytest.raises(RefusedError) as caught:
        admit_now(redis_client, "a__2", [quick])
    time.sleep(caught.value.retry_after_s)
    assert admit_now(redis_client, "a__2", [quick]) == Admitted("a__2")


def test_a_cost_above_the_burst_is_never_possible(redis_client: redis.Redis) -> None:
    with pytest.raises(RefusedError, match="never allows more than 5") as caught:
        admit_now(redis_client, "a__0", [limit("tenant", burst=100), limit("user", cost=6)])
    assert caught.value.limit == "user"
    assert math.isinf(caught.value.retry_after_s)
    assert limit_keys(redis_client) == set()
    assert admit_now(redis_client, "a__0", [limit("user", cost=5)]) == Admitted("a__0")


def test_costs_count(redis_client: redis.Redis) -> None:
    assert spend(redis_client, [limit(burst=10, cost=4)]) == 2


def test_a_burst_of_zero_switches_a_limit_off(redis_client: redis.Redis) -> None:
    for number in range(20):
        assert admit_now(redis_client, f"a__{number}", [limit(burst=0)]) == Admitted(f"a__{number}")
    assert limit_keys(redis_client) == set()


def test_without_limits_only_repetition_is_refused(redis_client: redis.Redis) -> None:
    assert admit_now(redis_client, "a__0", []) == Admitted("a__0")
    assert admit_now(redis_client, "a__0", []) == Duplicate("a__0")


@pytest.mark.parametrize(
    "values", [{"per_minute": 0}, {"per_minute": math.nan}, {"burst": -1}, {"cost": math.inf}, {"burst": 1e30}]
)
def test_impossible_limits_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="Limit user"):
        _ = limit(**values).charge_us


class TestExpiry:
    def test_a_state_expires_when_it_has_recovered(self, redis_client: redis.Redis) -> None:
        admit_now(redis_client, "a__0", [limit(per_minute=6, cost=2)])
        (key,) = limit_keys(redis_client)
        assert 19_000 < redis_client.pttl(key) <= 20_002

    def test_a_record_expires(self, redis_client: redis.Redis) -> None:
        admit_now(redis_client, "a__0", [limit()], record_ttl_s=100)
        refund(redis_client, "a__0")
        assert 90 < redis_client.ttl(keys.admission("a__0")) <= 100

    def test_a_recovered_state_takes_no_space(self, redis_client: redis.Redis) -> None:
        admit_now(redis_client, "a__0", [limit(per_minute=6_000)])
        deadline = time.monotonic() + 10
        while limit_keys(redis_client) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert limit_keys(redis_client) == set()


class TestRefund:
    def test_a_refund_gives_back_every_limit_once(self, redis_client: redis.Redis) -> None:
        limits = [limit("tenant", burst=9), limit("user", burst=5)]
        assert spend(redis_client, limits) == 5
        for _ in range(3):
            refund(redis_client, "a__2")
        assert spend(redis_client, limits, "b") == 1

    def test_everything_refunded_leaves_no_state(self, redis_client: redis.Redis) -> None:
        assert spend(redis_client, [limit()]) == 5
        for number in range(5):
            refund(redis_client, f"a__{number}")
        # The oldest charge has drained by the milliseconds since; no more than that may remain.
        assert all(redis_client.pttl(key) < 1_000 for key in limit_keys(redis_client))

    def test_a_refunded_job_is_still_a_duplicate(self, redis_client: redis.Redis) -> None:
        admit_now(redis_client, "a__0", [limit()])
        refund(redis_client, "a__0")
        assert admit_now(redis_client, "a__0", [limit()]) == Duplicate("a__0")

    def test_a_forgotten_job_may_come_again(self, redis_client: redis.Redis) -> None:
        admit_now(redis_client, "a__0", [limit(burst=1)])
        refund(redis_client, "a__0", forget=True)
        assert admit_now(redis_client, "a__0", [limit(burst=1)]) == Admitted("a__0")

    def test_refund_in_a_multi_happens_with_it_or_not_at_all(self, redis_client: redis.Redis) -> None:
        admit_now(redis_client, "a__0", [limit(burst=1)])
        with redis_client.pipeline() as pipeline:
            refund(pipeline, "a__0")
            pipeline.reset()
        assert spend(redis_client, [limit(burst=1)], "b") == 0
        with redis_client.pipeline() as pipeline:
            refund(pipeline, "a__0")
            pipeline.execute()
        assert spend(redis_client, [limit(burst=1)], "c") == 1

    async def test_refund_awaited(self, async_redis: redis.asyncio.Redis, redis_client: redis.Redis) -> None:
        await admit(async_redis, "a__0", [limit(burst=1)])
        assert await refund(async_redis, "a__0") == 1
        assert await refund(async_redis, "a__0") == 0
        assert spend(redis_client, [limit(burst=1)], "b") == 1

    def test_an_unknown_job_is_nothing_to_refund(self, redis_client: redis.Redis) -> None:
        assert refund(redis_client, "a__0") == 0


def test_scripts_survive_a_server_that_forgot_them(redis_client: redis.Redis) -> None:
    admit_now(redis_client, "a__0", [limit()])
    redis_client.script_flush()
    assert admit_now(redis_client, "a__1", [limit()]) == Admitted("a__1")


class Oracle:
    """GCRA of one key in exact arithmetic, as a bucket that drains: ATM Forum TM 4.0, continuous-state leaky bucket."""

    def __init__(self, unit_us: Fraction, burst: int) -> None:
        self.unit_us, self.burst, self.level_us, self.at_us = unit_us, burst, Fraction(0), 0

    def take(self, now_us: int, cost: int) -> Fraction | None:
        """None if admitted, otherwise how many microseconds to wait; infinite waits are the caller's affair."""
        level = max(Fraction(0), self.level_us - (now_us - self.at_us))
        excess = level + cost * self.unit_us - self.burst * self.unit_us
        if excess > 0:
            return excess
        self.level_us, self.at_us = level + cost * self.unit_us, now_us
        return None


def at(script: str, now_us: int) -> scripts.LuaScript:
    """The script with a clock that stands at ``now_us``."""
    text = scripts.load(script).text
    assert "redis.call('TIME')" in text
    return scripts.LuaScript(text.replace("redis.call('TIME')", f"{{ {now_us // 10**6}, {now_us % 10**6} }}"))


def take(client: redis.Redis, number: int, now_us: int, wanted: Limit) -> int | None:
    """Charge at a given time; None if admitted, otherwise the microseconds to wait."""
    code, *rest = at("admit", now_us).run(client, *admission._call(f"a__{number}", [wanted], [], 100))
    return None if code == 1 else rest[1]


SERVER_TESTS = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
START_US = 4_000_000_000_000_000  # ahead of the real clock, by which keys expire


@SERVER_TESTS
@given(
    unit_s=st.integers(1, 60),
    burst=st.integers(1, 20),
    steps=st.lists(st.tuples(st.integers(0, 90_000_000), st.integers(0, 6)), min_size=1, max_size=25),
)
def test_one_limit_decides_as_the_exact_algorithm(
    redis_client: redis.Redis, unit_s: int, burst: int, steps: list[tuple[int, int]]
) -> None:
    redis_client.flushall()
    oracle, now_us = Oracle(Fraction(unit_s * 10**6), burst), START_US
    for number, (gap_us, cost) in enumerate(steps):
        now_us += gap_us
        wanted = limit(per_minute=60 / unit_s, burst=burst, cost=cost)
        found = take(redis_client, number, now_us, wanted)
        if cost > burst:
            assert found == -1
        else:
            expected = oracle.take(now_us, cost)
            assert found is None if expected is None else found is not None and abs(found - expected) <= number + 1


@SERVER_TESTS
@given(steps=st.lists(st.tuples(st.integers(0, 8_000_000), st.booleans(), st.integers(1, 3)), min_size=1, max_size=25))
def test_refunds_never_let_more_through_than_the_rate_and_one_job(
    redis_client: redis.Redis, steps: list[tuple[int, bool, int]]
) -> None:
    """Whatever is refunded when: in any stretch of time no more is kept than burst + rate * time + one job's cost."""
    redis_client.flushall()
    now_us, kept = START_US, {}
    for number, (gap_us, give_back, cost) in enumerate(steps):
        now_us += gap_us
        if give_back and kept:
            oldest = min(kept)
            at("refund", now_us).run(redis_client, [keys.admission(f"a__{oldest}")], [0])
            del kept[oldest]
        if take(redis_client, number, now_us, limit(per_minute=60 / 5, burst=5, cost=cost)) is None:
            kept[number] = (now_us, cost)
    times = sorted(kept.values())
    for i, (began_us, _) in enumerate(times):
        for j in range(i, len(times)):
            allowed = 5 + (times[j][0] - began_us) / 5_000_000 + 3
            assert sum(cost for _, cost in times[i : j + 1]) <= allowed + 1e-5


def test_what_time_has_given_back_is_not_refunded_again(redis_client: redis.Redis) -> None:
    wanted = limit(per_minute=6, burst=5)
    assert take(redis_client, 0, START_US, wanted) is None
    later_us = START_US + 10_000_000
    assert [take(redis_client, number, later_us, wanted) for number in range(1, 6)] == [None] * 5
    at("refund", later_us).run(redis_client, [keys.admission("a__0")], [0])
    assert take(redis_client, 6, later_us, wanted) == 10_000_000
    at("refund", later_us + 4_000_000).run(redis_client, [keys.admission("a__1")], [0])
    assert take(redis_client, 7, later_us + 4_000_000, wanted) is None


def test_a_clock_that_goes_back_locks_nobody_out(redis_client: redis.Redis) -> None:
    wanted = limit(per_minute=6, burst=3)
    for number in range(3):
        assert take(redis_client, number, START_US, wanted) is None
    yesterday_us = START_US - 86_400 * 10**6
    wait_us = take(redis_client, 3, yesterday_us, wanted)
    assert wait_us is not None
    assert 0 < wait_us <= 30 * 10**6
    assert take(redis_client, 4, yesterday_us + wait_us, wanted) is None
