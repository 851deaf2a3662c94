from __future__ import annotations

import threading
import time

import pytest
import redis
from rq.job import Job

from tests.fair_jobs import FairJob, end, push
from workers.fair_queue import FairQueue


@pytest.fixture
def queue(redis_client: redis.Redis) -> FairQueue:
    return FairQueue("chat", connection=redis_client, job_class=Job, serializer="json")


def jobs(tenant: str, n: int, *, user: str = "", first: int = 0) -> list[FairJob]:
    return [FairJob(f"{tenant}__{i}", user=user) for i in range(first, first + n)]


def ids(tenant: str, *numbers: int) -> list[str]:
    return [f"{tenant}__{i}" for i in numbers]


class TestCaps:
    def test_a_tenant_at_its_cap_is_passed_over_until_a_job_ends(self, queue: FairQueue) -> None:
        queue.set_caps(2, 99)
        push(queue, [*jobs("a", 5), *jobs("b", 3)])
        assert queue.pop_many(10) == ["a__0", "b__0", "a__1", "b__1"]
        assert queue.pop_many(10) == []
        end(queue.connection, queue, ["a__0"])
        assert queue.pop_many(10) == ["a__2"]
        assert queue.count == 3

    def test_capped_tenants_cost_nothing_per_pop(self, queue: FairQueue) -> None:
        queue.set_caps(1, 99)
        push(queue, [FairJob(f"t{t}__{i}") for i in range(2) for t in range(300)])
        assert len(queue.pop_many(400)) == 300
        queue.connection.config_resetstat()
        assert queue.pop_many(64) == []
        calls = sum(stat["calls"] for stat in queue.connection.info("commandstats").values())
        assert calls < 30

    def test_a_user_at_the_cap_does_not_hold_up_others_of_the_tenant(self, queue: FairQueue) -> None:
        queue.set_caps(99, 2)
        push(queue, [*jobs("a", 300, user="busy"), *jobs("a", 1, user="other", first=900)])
        taken = queue.pop_many(8)
        assert taken == ids("a", 0, 1, 900)
        assert queue.count == 298
        end(queue.connection, queue, ["a__0", "a__1"])
        assert queue.pop_many(8) == ids("a", 2, 3)

    def test_parked_jobs_keep_their_order(self, queue: FairQueue) -> None:
        queue.set_caps(99, 3)
        push(queue, jobs("a", 12, user="u"))
        served = []
        while batch := queue.pop_many(5):
            served += batch
            end(queue.connection, queue, batch)
        assert served == ids("a", *range(12))

    def test_the_same_user_of_another_tenant_counts_separately(self, queue: FairQueue) -> None:
        queue.set_caps(99, 1)
        push(queue, [FairJob("a__0", user="u"), FairJob("b__0", user="u"), FairJob("a__1", user="u")])
        assert sorted(queue.pop_many(9)) == ["a__0", "b__0"]

    def test_raising_the_caps_frees_who_waited(self, queue: FairQueue) -> None:
        queue.set_caps(1, 1)
        push(queue, [*jobs("a", 3, user="u"), *jobs("b", 2, user="v")])
        assert queue.pop_many(9) == ["a__0", "b__0"]
        queue.set_caps(9, 9)
        assert sorted(queue.pop_many(9)) == ["a__1", "a__2", "b__1"]

    def test_lowering_the_caps_holds_for_the_next_pop(self, queue: FairQueue) -> None:
        push(queue, jobs("a", 5))
        queue.pop_many(3)
        queue.set_caps(2, 9)
        assert queue.pop_many(5) == []
        end(queue.connection, queue, ids("a", 0, 1))
        assert queue.pop_many(5) == ["a__3"]

    def test_release_is_safe_to_repeat(self, queue: FairQueue) -> None:
        queue.set_caps(1, 9)
        push(queue, jobs("a", 3))
        queue.pop_many(1)
        for _ in range(3):
            end(queue.connection, queue, ["a__0"])
        assert queue.pop_many(3) == ["a__1"]

    @pytest.mark.parametrize("caps", [(0, 1), (1, 0)])
    def test_caps_below_one_are_refused(self, queue: FairQueue, caps: tuple[int, int]) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            queue.set_caps(*caps)


class TestWait:
    def woken_by(self, queue: FairQueue, act: object) -> bool:
        """Whether a sleeper wakes within a generous deadline once ``act`` happens, and slept until then."""
        woken: list[bool] = []
        sleeper = threading.Thread(target=lambda: woken.append(queue.wait(20)))
        sleeper.start()
        time.sleep(0.2)
        slept = not woken
        act()  # type: ignore[operator]  # a plain callable
        sleeper.join(10)
        return slept and woken == [True]

    def test_a_new_job_wakes(self, queue: FairQueue) -> None:
        assert self.woken_by(queue, lambda: push(queue, jobs("a", 1)))

    def test_the_end_of_a_capped_tenants_job_wakes(self, queue: FairQueue) -> None:
        queue.set_caps(1, 9)
        push(queue, jobs("a", 2))
        queue.pop_many(2)
        assert queue.pop_many(2) == []
        assert self.woken_by(queue, lambda: end(queue.connection, queue, ["a__0"]))
        assert queue.pop_many(2) == ["a__1"]

    def test_the_end_of_a_capped_users_job_wakes(self, queue: FairQueue) -> None:
        queue.set_caps(9, 1)
        push(queue, jobs("a", 2, user="u"))
        assert queue.pop_many(2) == ["a__0"]
        assert self.woken_by(queue, lambda: end(queue.connection, queue, ["a__0"]))
        assert queue.pop_many(2) == ["a__1"]

    def test_a_rescued_job_wakes(self, queue: FairQueue) -> None:
        push(queue, jobs("a", 1))
        queue.pop_many(1)
        assert queue.pop_many(1) == []
        assert self.woken_by(queue, lambda: queue.reconcile(age_s=0))

    def test_sorted_jobs_need_no_waiting(self, queue: FairQueue) -> None:
        push(queue, jobs("a", 9))
        queue.pop_many(1)
        assert queue.wait(20)

    def test_jobs_that_somebody_else_sorts_meanwhile_wake(self, queue: FairQueue) -> None:
        def push_and_sort() -> None:
            with queue.connection.pipeline() as pipeline:  # in one MULTI, so that no sleeper sees the inbox
                pipeline.hset("rq:job:a__0", "status", "queued")
                pipeline.rpush(queue.key, "a__0")
                queue._script("pop").queue(pipeline, *queue._call(0, 64, 0))
                pipeline.execute()

        assert self.woken_by(queue, push_and_sort)
        assert queue.pop_many(1) == ["a__0"]

    def test_nothing_to_do_times_out_and_takes_nothing(self, queue: FairQueue) -> None:
        assert not queue.wait(0.05)
        push(queue, jobs("a", 1))
        assert queue.wait(1)
        assert queue.count == 1
