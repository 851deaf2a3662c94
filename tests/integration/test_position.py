from __future__ import annotations

import pytest
import redis
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rq.job import Job

from tests.fair_jobs import FairJob, end, push
from workers import keys, scripts
from workers.fair_queue import FairQueue
from workers.position import Position, SpeedMeter, position, report_speed


@pytest.fixture
def queue(redis_client: redis.Redis) -> FairQueue:
    return FairQueue("chat", connection=redis_client, job_class=Job, serializer="json")


async def ahead(client: redis.asyncio.Redis, job_id: str) -> int:
    found = await position(client, "chat", job_id)
    assert found is not None
    return found.ahead


def serve_all(queue: FairQueue) -> list[str]:
    order: list[str] = []
    while taken := queue.pop_many(1):
        order += taken
        end(queue.connection, queue, taken)
    return order


async def test_the_fair_place_is_told_and_not_the_place_in_the_line(
    queue: FairQueue, async_redis: redis.asyncio.Redis
) -> None:
    push(queue, [FairJob(f"flood__{i}") for i in range(60)])
    queue.pop_many(1)
    push(queue, [FairJob("new__0")])
    assert await ahead(async_redis, "new__0") <= 1
    assert await ahead(async_redis, "flood__59") in (58, 59)


async def test_a_job_that_does_not_wait_has_no_position(queue: FairQueue, async_redis: redis.asyncio.Redis) -> None:
    push(queue, [FairJob("a__0"), FairJob("a__1")])
    assert await position(async_redis, "chat", "a__9") is None
    queue.pop_many(1)
    assert await ahead(async_redis, "a__0") == 0  # popped and about to start
    end(queue.connection, queue, ["a__0"])
    assert await position(async_redis, "chat", "a__0") is None


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    lanes=st.dictionaries(
        st.sampled_from("abcdefgh"),
        st.tuples(st.sampled_from([0.5, 1.0, 4.0]), st.sampled_from([0.5, 1.0, 2.0, 8.0]), st.integers(1, 25)),
        min_size=1,
        max_size=8,
    ),
    served=st.integers(0, 20),
)
def test_the_place_is_exact_up_to_one_job_a_tenant(
    queue: FairQueue, lanes: dict[str, tuple[float, float, int]], served: int
) -> None:
    """Each tenant's jobs cost the same here; the error is that of ties."""
    queue.connection.flushall()
    for tenant, (weight, _, _) in lanes.items():
        queue.set_weight(tenant, weight)
    push(queue, [FairJob(f"{tenant}__{i}", cost) for tenant, (_, cost, n) in lanes.items() for i in range(n)])
    for _ in range(served):
        end(queue.connection, queue, queue.pop_many(1))
    while queue.connection.llen(queue.key):
        queue._run("pop", 0, 64, 0)
    told = told_positions(queue, queue.get_job_ids())
    for place, job_id in enumerate(serve_all(queue)):
        assert abs(told[job_id] - place) <= len(lanes) - 1


def told_positions(queue: FairQueue, job_ids: list[str]) -> dict[str, int]:
    """Positions over a synchronous connection: hypothesis runs no coroutines."""
    script = scripts.load("lanes", "position")
    names = [queue.key, queue.intermediate_queue_key, keys.speed("chat")]
    common = [keys.fair("chat", ""), "rq:job:"]
    return {job: script.run(queue.connection, names, [*common, job, 32, 8, 256, 60])[0] for job in job_ids}


async def test_the_place_only_gets_better_while_nobody_arrives(
    queue: FairQueue, async_redis: redis.asyncio.Redis
) -> None:
    push(
        queue,
        [
            FairJob(f"{tenant}__{i}", cost)
            for tenant, cost in zip("abcde", (1, 2, 1, 8, 0.5), strict=True)
            for i in range(20)
        ],
    )
    last = await ahead(async_redis, "c__19")
    while True:
        taken = queue.pop_many(1)
        if "c__19" in taken:
            break
        end(queue.connection, queue, taken)
        now = await ahead(async_redis, "c__19")
        assert now <= last
        last = now
    assert last <= 4


async def test_a_thousand_tenants_are_estimated_in_bounded_work(
    queue: FairQueue, async_redis: redis.asyncio.Redis
) -> None:
    push(queue, [FairJob(f"t{t}__{i}", cost_gpu_s=1 + t % 4) for i in range(4) for t in range(1_000)])
    while queue.connection.llen(queue.key):
        queue.pop_many(1)
    queue.connection.config_resetstat()
    told = await ahead(async_redis, "t500__3")
    calls = sum(stat["calls"] for stat in queue.connection.info("commandstats").values())
    assert calls < 1_000
    place = serve_all(queue).index("t500__3")
    assert abs(told - place) <= 0.25 * place


async def test_a_job_behind_an_unsorted_burst_has_a_place(queue: FairQueue, async_redis: redis.asyncio.Redis) -> None:
    push(queue, [FairJob(f"a__{i}") for i in range(500)])
    assert await ahead(async_redis, "a__499") == 499
    assert await ahead(async_redis, "a__10") == 10


async def test_a_job_that_waits_for_its_users_cap_has_a_place(
    queue: FairQueue, async_redis: redis.asyncio.Redis
) -> None:
    queue.set_caps(9, 1)
    push(queue, [FairJob(f"a__{i}", user="u") for i in range(4)])
    queue.pop_many(4)
    assert await ahead(async_redis, "a__3") == 2


class TestEta:
    async def test_unknown_until_a_worker_reports(self, queue: FairQueue, async_redis: redis.asyncio.Redis) -> None:
        push(queue, [FairJob("a__0")])
        assert await position(async_redis, "chat", "a__0") == Position(ahead=0, eta_s=None)

    async def test_from_all_workers_slots_and_speed(self, queue: FairQueue, async_redis: redis.asyncio.Redis) -> None:
        push(queue, [FairJob(f"a__{i}") for i in range(9)])
        with queue.connection.pipeline() as pipeline:
            report_speed(pipeline, "chat", "one", slots=4, seconds_per_job=2.0)
            report_speed(pipeline, "chat", "two", slots=8, seconds_per_job=4.0)
            report_speed(pipeline, "chat", "two", slots=2, seconds_per_job=2.0)
            pipeline.execute()
        assert await position(async_redis, "chat", "a__8") == Position(ahead=8, eta_s=pytest.approx(3.0))

    async def test_old_reports_do_not_count_and_go(self, queue: FairQueue, async_redis: redis.asyncio.Redis) -> None:
        push(queue, [FairJob("a__0")])
        queue.connection.hset(keys.speed("chat"), "gone", "100 1 1700000000")
        assert await position(async_redis, "chat", "a__0") == Position(ahead=0, eta_s=None)
        report_speed(queue.connection, "chat", "one", slots=1, seconds_per_job=5.0)
        assert queue.connection.hkeys(keys.speed("chat")) == [b"one"]
        assert 0 < queue.connection.ttl(keys.speed("chat")) <= 120

    @pytest.mark.parametrize(("slots", "seconds"), [(0, 1.0), (1, 0.0), (1, float("inf")), (1, float("nan"))])
    def test_impossible_reports_are_refused(self, queue: FairQueue, slots: int, seconds: float) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            report_speed(queue.connection, "chat", "one", slots, seconds)


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50))
def test_the_mean_stays_within_what_was_seen(durations: list[float]) -> None:
    meter = SpeedMeter()
    for duration_s in durations:
        meter.observe(duration_s)
    assert meter.seconds_per_job is not None
    assert min(durations) - 1e-9 <= meter.seconds_per_job <= max(durations) + 1e-9


def test_the_mean_follows_a_change() -> None:
    meter = SpeedMeter()
    for duration_s in [1.0] * 50 + [5.0] * 50:
        meter.observe(duration_s)
    assert meter.seconds_per_job == pytest.approx(5.0, abs=0.1)
