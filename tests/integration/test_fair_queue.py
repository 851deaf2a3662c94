from __future__ import annotations

import pytest
import redis
from rq import Queue
from rq.job import Job
from rq.registry import FailedJobRegistry

from tests.fair_jobs import FairJob, end, push, start
from workers import fair_queue, keys
from workers.contract import tenant_of
from workers.fair_queue import FairQueue


@pytest.fixture
def queue(redis_client: redis.Redis) -> FairQueue:
    return FairQueue("chat", connection=redis_client, job_class=Job, serializer="json")


def jobs(tenant: str, n: int, *, user: str = "", first: int = 0) -> list[FairJob]:
    return [FairJob(f"{tenant}__{i}", user=user) for i in range(first, first + n)]


def ids(tenant: str, *numbers: int) -> list[str]:
    return [f"{tenant}__{i}" for i in numbers]


def fair_keys(client: redis.Redis) -> set[str]:
    prefix = keys.fair("chat", "")
    return {key.decode().removeprefix(prefix) for key in client.scan_iter(prefix + "*")}


def test_stock_enqueue_is_served_tenant_by_tenant(queue: FairQueue) -> None:
    for i in range(5):
        queue.enqueue("palaver.chat", job_id=f"a__{i}", description="-")
    queue.enqueue("palaver.chat", job_id="b__0", description="-", unique=True)

    assert queue.pop_many(4) == ["a__0", "b__0", "a__1", "a__2"]
    assert queue.intermediate_queue.get_job_ids() == ["a__0", "b__0", "a__1", "a__2"]


def test_ids_without_a_tenant_share_one_lane(queue: FairQueue) -> None:
    push(queue, [FairJob("one"), FairJob("two"), *jobs("a", 2)])
    assert sorted(queue.pop_many(2)) == ["a__0", "one"]


def test_a_newcomer_waits_for_no_backlog(queue: FairQueue) -> None:
    push(queue, jobs("flood", 2_000))
    running = queue.pop_many(8)
    push(queue, jobs("new", 1))
    end(queue.connection, queue, running[:2])
    assert "new__0" in queue.pop_many(2)


def test_a_newcomer_waits_for_no_backlog_while_costs_are_overestimated(queue: FairQueue) -> None:
    push(queue, jobs("flood", 2_000))
    running = queue.pop_many(64)
    for job_id in running:
        queue.settle(queue.connection, job_id, 1.0, 0.01)
    end(queue.connection, queue, running)
    push(queue, jobs("new", 1))
    assert "new__0" in queue.pop_many(2)


def test_a_newcomer_is_seen_behind_an_unsorted_burst_in_one_pop(queue: FairQueue) -> None:
    push(queue, [*jobs("flood", 2_000), *jobs("new", 1)])
    assert "new__0" in queue.pop_many(2)


def test_retries_come_first_within_their_lane_and_in_order(queue: FairQueue) -> None:
    push(queue, jobs("a", 3))
    queue.pop_many(1)
    push(queue, jobs("a", 2, first=10), started=True)
    assert queue.pop_many(3) == ids("a", 10, 11, 1)


@pytest.mark.parametrize("unique", [False, True])
def test_at_front_is_the_front_of_ones_own_lane(queue: FairQueue, unique: bool) -> None:
    push(queue, [*jobs("a", 3), *jobs("b", 1)])
    assert queue.pop_many(1) == ["a__0"]
    queue.enqueue("palaver.chat", job_id="a__front", description="-", at_front=True, unique=unique)
    assert queue.pop_many(3) == ["b__0", "a__front", "a__1"]


@pytest.mark.parametrize("sorted_before", [False, True])
def test_cancelled_and_deleted_jobs_are_dropped(queue: FairQueue, sorted_before: bool) -> None:
    for i in range(4):
        queue.enqueue("palaver.chat", job_id=f"a__{i}", description="-")
    if sorted_before:
        assert queue.pop_many(1) == ["a__0"]
    Job.fetch("a__1", connection=queue.connection, serializer=queue.serializer).cancel()
    Job.fetch("a__2", connection=queue.connection, serializer=queue.serializer).delete()
    assert queue.pop_many(4) == (["a__3"] if sorted_before else ["a__0", "a__3"])
    assert queue.count == 0


def test_an_id_listed_twice_is_served_once(queue: FairQueue) -> None:
    push(queue, [*jobs("a", 2), *jobs("a", 2), *jobs("a", 1)])
    assert queue.pop_many(10) == ids("a", 0, 1)
    push(queue, jobs("a", 1))
    assert queue.pop_many(10) == []
    assert queue.count == 0


def test_a_running_job_is_not_served_again(queue: FairQueue) -> None:
    push(queue, jobs("a", 1))
    start(queue.connection, queue, queue.pop_many(1))
    queue.connection.rpush(queue.key, "a__0")
    assert queue.pop_many(1) == []


def test_a_job_requeued_after_its_worker_died_is_served_at_once(queue: FairQueue) -> None:
    queue.set_caps(2, 2)
    push(queue, [FairJob("a__0", user="u"), FairJob("a__1", user="u")])
    start(queue.connection, queue, queue.pop_many(1))
    push(queue, [FairJob("a__0", user="u")], started=True)  # rq's clean-up knows nothing of release
    assert queue.pop_many(2) == ids("a", 0, 1)
    end(queue.connection, queue, ids("a", 0, 1))
    assert not queue.connection.exists(keys.fair("chat", "in_flight"), keys.fair("chat", "running"))


def cancel_all(queue: FairQueue, tenant: str, n: int) -> None:
    with queue.connection.pipeline(transaction=False) as pipeline:
        for job_id in ids(tenant, *range(n)):
            pipeline.hset(f"rq:job:{job_id}", "status", "canceled")
        pipeline.execute()


def sort_all(queue: FairQueue) -> None:
    while queue.connection.llen(queue.key):
        queue._run("pop", 0, fair_queue.MAX_INGEST, 0)


def test_work_of_one_call_is_bounded(queue: FairQueue) -> None:
    for number in range(20):
        push(queue, jobs(f"dead{number}", 50))
    sort_all(queue)
    for number in range(20):
        cancel_all(queue, f"dead{number}", 50)
    served, stopped, _ = queue._run("pop", 64, fair_queue.MAX_INGEST, fair_queue.MAX_MISSES)
    assert (served, stopped) == ([], 1)
    assert 1_000 - queue.count == fair_queue.MAX_MISSES
    assert queue.pop_many(1) == []
    assert queue.count == 0


def test_the_inbox_is_sorted_in_calls_of_64(queue: FairQueue) -> None:
    push(queue, jobs("a", 1_000))
    _, _, left = queue._run("pop", 1, fair_queue.MAX_INGEST, fair_queue.MAX_MISSES)
    assert left == 1_000 - fair_queue.MAX_INGEST


def test_dead_ids_of_one_tenant_do_not_hide_another(queue: FairQueue) -> None:
    push(queue, [*jobs("dead", 500), *jobs("live", 1)])
    sort_all(queue)
    cancel_all(queue, "dead", 500)
    served, _, _ = queue._run("pop", 1, fair_queue.MAX_INGEST, fair_queue.MAX_MISSES)
    assert served == [b"live__0"]
    assert queue.pop_many(1) == []
    assert queue.count == 0


class TestTruth:
    def test_count_and_ids_see_every_place_a_job_can_wait(self, queue: FairQueue) -> None:
        queue.set_caps(3, 1)
        push(queue, [*jobs("a", 5, user="u"), *jobs("b", 6), *jobs("c", 1)])
        taken = queue.pop_many(9)
        push(queue, jobs("d", 2))
        waiting = {*ids("a", *range(5)), *ids("b", *range(6)), "c__0", *ids("d", 0, 1)} - set(taken)
        assert queue.count == len(queue) == len(waiting)
        assert set(queue.get_job_ids()) == set(queue.job_ids) == waiting
        assert {job.id for job in queue.get_jobs()} == waiting
        assert queue.get_job_ids(1, 3) == queue.get_job_ids()[1:4]
        assert queue.get_job_ids(0, 0) == []
        assert not queue.is_empty()

    def test_place_within_the_lane(self, queue: FairQueue) -> None:
        push(queue, [*jobs("b", 5), *jobs("a", 3)])
        queue.pop_many(1)
        push(queue, jobs("a", 1, first=7))
        assert [queue.get_job_position(job) for job in ids("a", 1, 2, 7)] == [0, 1, 2]
        assert queue.get_job_position("a__99") is None

    def test_remove_finds_a_job_wherever_it_waits(self, queue: FairQueue) -> None:
        queue.set_caps(9, 1)
        push(queue, jobs("a", 3, user="u"))
        queue.pop_many(3)
        push(queue, jobs("b", 2))
        queue.wait(0.01)
        queue.remove("a__1")
        with queue.connection.pipeline() as pipeline:
            queue.remove("b__1", pipeline=pipeline)
            pipeline.execute()
        assert sorted(queue.get_job_ids()) == ["a__2", "b__0"]
        assert queue.count == 2

    def test_compact_drops_ids_without_a_job(self, queue: FairQueue) -> None:
        push(queue, jobs("a", 4))
        queue.pop_many(1)
        queue.connection.delete("rq:job:a__2")
        queue.compact()
        assert queue.get_job_ids() == ids("a", 1, 3)

    def test_empty_deletes_the_jobs_and_counts_them(self, queue: FairQueue) -> None:
        queue.set_caps(3, 1)
        push(queue, [*jobs("a", 300, user="u"), *jobs("b", 300)])
        taken = queue.pop_many(9)
        push(queue, jobs("c", 300))
        assert queue.empty() == 900 - len(taken)
        assert queue.is_empty()
        assert queue.get_job_ids() == []
        assert len(list(queue.connection.scan_iter("rq:job:*"))) == len(taken)
        push(queue, jobs("b", 1, first=900))
        end(queue.connection, queue, taken)
        assert queue.pop_many(2) == ["b__900"]

    def test_delete_leaves_nothing_but_running_jobs(self, queue: FairQueue) -> None:
        queue.set_caps(5, 5)
        queue.set_weight("a", 3)
        push(queue, jobs("a", 20))
        taken = queue.pop_many(2)
        queue.delete()
        assert fair_keys(queue.connection) == {"running", "in_flight"}
        end(queue.connection, queue, taken)
        assert fair_keys(queue.connection) == set()

    def test_a_queue_found_by_its_key_is_the_same_queue(self, queue: FairQueue) -> None:
        queue.enqueue("palaver.chat", job_id="a__0", description="-")
        push(queue, jobs("a", 4, first=1))
        queue.pop_many(1)
        (found,) = FairQueue.all(connection=queue.connection, job_class=Job)
        assert isinstance(found, FairQueue)
        assert found.count == 4

    def test_a_failed_job_is_requeued_by_rqs_own_registry(self, queue: FairQueue) -> None:
        job = queue.enqueue("palaver.chat", job_id="a__0", description="-")
        queue.pop_many(1)
        end(queue.connection, queue, ["a__0"])
        registry = FailedJobRegistry(queue=queue)
        registry.add(job, exc_string="-")
        registry.requeue("a__0")
        assert queue.count == 1
        assert queue.pop_many(1) == ["a__0"]

    def test_a_plain_queue_sees_the_inbox_only(self, queue: FairQueue) -> None:
        push(queue, jobs("a", 3))
        assert Queue("chat", connection=queue.connection).count == queue.count == 3


class TestState:
    def test_marks_of_jobs_that_rq_removed_meanwhile_do_not_stay(self, queue: FairQueue) -> None:
        push(queue, jobs("a", 2))
        queue.pop_many(1)
        queue.reconcile(age_s=0)
        queue.connection.lrem(queue.key, 0, "a__0")  # as rq's own cancel does
        queue.pop_many(1)
        assert "heads" not in fair_keys(queue.connection)

    def test_nothing_remains_when_everything_has_ended(self, queue: FairQueue) -> None:
        push(queue, [FairJob(f"t{t}__{i}", cost_gpu_s=1 + t % 3, user=f"u{i}") for i in range(3) for t in range(200)])
        while batch := queue.pop_many(64):
            start(queue.connection, queue, batch)
            end(queue.connection, queue, batch)
        assert queue.pop_many(1) == []
        assert fair_keys(queue.connection) == set()

    def test_idle_tenants_are_forgotten_while_others_go_on(self, queue: FairQueue) -> None:
        push(queue, [FairJob(f"t{t}__0") for t in range(200)])
        push(queue, jobs("steady", 50))
        while batch := queue.pop_many(16):
            end(queue.connection, queue, batch)
            if queue.count:
                push(queue, jobs("steady", 0))
        client = queue.connection
        assert client.zcard(keys.fair("chat", "ring")) + client.zcard(keys.fair("chat", "finish")) <= 1

    def test_a_weight_of_one_takes_no_space(self, queue: FairQueue) -> None:
        queue.set_weight("a", 2)
        queue.set_weight("a", 1)
        assert fair_keys(queue.connection) == set()

    @pytest.mark.parametrize("weight", [0, -1, 1e9, float("nan")])
    def test_impossible_weights_are_refused(self, queue: FairQueue, weight: float) -> None:
        with pytest.raises(ValueError, match="weight"):
            queue.set_weight("a", weight)

    @pytest.mark.parametrize("cost", [-1, float("nan"), float("inf")])
    def test_impossible_costs_are_refused(self, queue: FairQueue, cost: float) -> None:
        with pytest.raises(ValueError, match="actual_gpu_s"):
            queue.settle(queue.connection, "a__0", 1, cost)

    @pytest.mark.parametrize("cost", ["nan", "inf", "-5", "0", "1e300", "many", ""])
    def test_a_broken_cost_counts_as_one(self, queue: FairQueue, cost: str) -> None:
        push(queue, [*jobs("a", 3), *jobs("b", 3)])
        queue.connection.hset("rq:job:a__0", "cost_gpu_s", cost)
        assert [tenant_of(job) for job in queue.pop_many(6)] == ["a", "b", "a", "b", "a", "b"]


def test_rq_maintenance_uses_the_fair_intermediate_list(queue: FairQueue) -> None:
    assert isinstance(queue.intermediate_queue, fair_queue.FairIntermediateQueue)
    assert queue.acquire_maintenance_lock()
    assert not queue.acquire_maintenance_lock()
    assert 0 < queue.connection.ttl(queue.registry_cleaning_key) <= fair_queue.MAINTENANCE_LOCK_S
    queue.release_maintenance_lock()
    assert queue.acquire_maintenance_lock()


def test_scripts_survive_a_server_that_forgot_them(queue: FairQueue) -> None:
    push(queue, jobs("a", 2))
    assert queue.pop_many(1) == ["a__0"]
    queue.connection.script_flush()
    assert queue.pop_many(1) == ["a__1"]


def test_a_wrong_count_hides_no_job(queue: FairQueue) -> None:
    push(queue, jobs("a", 5))
    end(queue.connection, queue, queue.pop_many(1))
    queue.connection.hset(keys.fair("chat", "state"), "queued", 0)
    assert queue.pop_many(9) == ids("a", 1, 2, 3, 4)
    assert queue.count == 0
