"""Properties of the order of service, on a real server."""

from __future__ import annotations

from collections import defaultdict

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rq.job import Job

from tests.fair_jobs import FairJob, end, push
from workers.contract import tenant_of
from workers.fair_queue import FairQueue

DATABASE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)

COSTS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 8.0, 30.0])
BACKLOGS = st.dictionaries(
    st.sampled_from(["a", "b", "c", "d", "e"]),
    st.tuples(st.sampled_from([0.5, 1.0, 2.0, 5.0]), st.lists(COSTS, min_size=1, max_size=40)),
    min_size=2,
    max_size=5,
)


@pytest.fixture
def queue(redis_client: redis.Redis) -> FairQueue:
    return FairQueue("chat", connection=redis_client, job_class=Job, serializer="json")


def serve(queue: FairQueue, n: int, batch: int) -> list[str]:
    served: list[str] = []
    while len(served) < n and (taken := queue.pop_many(min(batch, n - len(served)))):
        end(queue.connection, queue, taken)
        served += taken
    return served


@DATABASE
@given(backlogs=BACKLOGS, batch=st.integers(1, 16))
def test_shares_differ_by_at_most_one_job_of_each_while_backlogged(
    queue: FairQueue, backlogs: dict[str, tuple[float, list[float]]], batch: int
) -> None:
    """Theorem 1 of Goyal, Vin and Chen: |W_f/r_f - W_m/r_m| <= c_f_max/r_f + c_m_max/r_m while both are backlogged."""
    queue.connection.flushall()
    cost = {f"{tenant}__{i}": c for tenant, (_, costs) in backlogs.items() for i, c in enumerate(costs)}
    for tenant, (weight, _) in backlogs.items():
        queue.set_weight(tenant, weight)
    push(queue, [FairJob(job_id, c) for job_id, c in cost.items()])

    order = serve(queue, len(cost), batch)
    assert sorted(order) == sorted(cost)  # nothing lost, nothing served twice

    work: dict[str, float] = defaultdict(float)
    left = {tenant: len(costs) for tenant, (_, costs) in backlogs.items()}
    for job_id in order:
        tenant = tenant_of(job_id)
        work[tenant] += cost[job_id] / backlogs[tenant][0]
        left[tenant] -= 1
        backlogged = [name for name, number in left.items() if number]
        for one in backlogged:
            for other in backlogged:
                bound = sum(max(backlogs[name][1]) / backlogs[name][0] for name in (one, other))
                assert abs(work[one] - work[other]) <= bound + 1e-9


@DATABASE
@given(backlogs=BACKLOGS, batch=st.integers(1, 16))
def test_a_tenants_own_jobs_stay_in_order(
    queue: FairQueue, backlogs: dict[str, tuple[float, list[float]]], batch: int
) -> None:
    queue.connection.flushall()
    push(queue, [FairJob(f"{t}__{i}", c) for t, (_, costs) in backlogs.items() for i, c in enumerate(costs)])
    order = serve(queue, 10_000, batch)
    for tenant, (_, costs) in backlogs.items():
        numbers = [int(job_id.partition("__")[2]) for job_id in order if tenant_of(job_id) == tenant]
        assert numbers == list(range(len(costs)))


@DATABASE
@given(
    batch=st.integers(1, 8),
    real=st.dictionaries(st.sampled_from(["a", "b"]), st.sampled_from([0.25, 1.0, 4.0]), min_size=2, max_size=2),
)
def test_real_costs_decide_whatever_was_estimated(queue: FairQueue, batch: int, real: dict[str, float]) -> None:
    queue.connection.flushall()
    push(queue, [FairJob(f"{tenant}__{i}", 1.0) for tenant in real for i in range(200)])
    work: dict[str, float] = defaultdict(float)
    for _ in range(150 // batch):
        taken = queue.pop_many(batch)
        for job_id in taken:
            work[tenant_of(job_id)] += real[tenant_of(job_id)]
            queue.settle(queue.connection, job_id, 1.0, real[tenant_of(job_id)])
        end(queue.connection, queue, taken)
    # What is in flight is charged by its estimate, so a whole batch may be off, and no more.
    assert abs(work["a"] - work["b"]) <= (batch + 1) * max(*real.values(), 1.0) * 2


def test_images_of_8_s_and_chats_of_1_s_get_equal_gpu_time(queue: FairQueue) -> None:
    push(queue, [FairJob(f"images__{i}", 8.0) for i in range(200)])
    push(queue, [FairJob(f"chats__{i}", 1.0) for i in range(800)])
    served = serve(queue, 450, 16)
    images = 8 * sum(tenant_of(job_id) == "images" for job_id in served)
    chats = sum(tenant_of(job_id) == "chats" for job_id in served)
    assert abs(images - chats) <= 9


def test_weights_share_in_proportion(queue: FairQueue) -> None:
    queue.set_weight("paying", 3)
    push(queue, [FairJob(f"{tenant}__{i}") for i in range(300) for tenant in ("paying", "free")])
    served = serve(queue, 200, 8)
    assert abs(sum(tenant_of(job_id) == "paying" for job_id in served) - 150) <= 2


def test_using_an_idle_gpu_is_not_held_against_a_tenant(queue: FairQueue) -> None:
    push(queue, [FairJob(f"alone__{i}", 8.0) for i in range(50)])
    serve(queue, 50, 4)
    push(queue, [FairJob(f"{tenant}__{i}") for i in range(100, 120) for tenant in ("alone", "new")])
    served = serve(queue, 20, 1)
    assert abs(sum(tenant_of(job_id) == "alone" for job_id in served) - 10) <= 1


def test_leaving_and_coming_back_does_not_jump_the_queue(queue: FairQueue) -> None:
    """A tenant that always has one job queued gets no more than one that has many."""
    push(queue, [FairJob(f"many__{i}", 1.0) for i in range(300)])
    served: list[str] = []
    for i in range(60):
        push(queue, [FairJob(f"one__{i}", 4.0)])
        served += serve(queue, 5, 1)
    work = {tenant: sum(tenant_of(job_id) == tenant for job_id in served) for tenant in ("many", "one")}
    assert work["one"] * 4 <= work["many"] + 8


@pytest.mark.parametrize("meanwhile", [0, 5])
def test_a_long_answer_is_charged_to_an_idle_tenant_too(queue: FairQueue, meanwhile: int) -> None:
    """Whether the tenant has just run dry or has been forgotten since."""
    push(queue, [FairJob(f"steady__{i}") for i in range(100)])
    push(queue, [FairJob("long__0", 1.0)])
    taken = queue.pop_many(2)
    serve(queue, meanwhile, 1)
    queue.settle(queue.connection, "long__0", 1.0, 20.0)
    end(queue.connection, queue, taken)
    push(queue, [FairJob("long__1", 1.0)])
    order = serve(queue, 40, 1)
    assert abs(order.index("long__1") + meanwhile - 19) <= 2


def test_a_tenant_that_ran_dry_gives_its_turn_to_the_next_and_not_to_the_last(queue: FairQueue) -> None:
    push(queue, [FairJob("a__0"), *(FairJob(f"{tenant}__{i}") for i in range(5) for tenant in ("b", "c"))])
    assert serve(queue, 3, 3) == ["a__0", "b__0", "c__0"]
    assert sorted(queue.pop_many(2)) == ["b__1", "c__1"]


def test_settling_twice_charges_once(queue: FairQueue) -> None:
    push(queue, [FairJob(f"{tenant}__{i}") for i in range(50) for tenant in ("a", "b")])
    taken = queue.pop_many(2)
    for _ in range(3):
        queue.settle(queue.connection, "a__0", 1.0, 5.0)
    end(queue.connection, queue, taken)
    served = serve(queue, 30, 1)
    a = sum(tenant_of(job_id) == "a" for job_id in served)
    assert abs((30 - a) - (a + 4)) <= 1
