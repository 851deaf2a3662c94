"""Several real processes on one fair queue, one of them killed, and rq's own command line."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import redis
from rq.job import Job

from tests.fair_jobs import FairJob, end, push, start
from tests.valkey import ValkeyProcess
from workers import keys
from workers.fair_queue import FairQueue

ROOT = Path(__file__).parents[2]
DEADLINE_S = 120


@pytest.fixture
def queue(redis_client: redis.Redis) -> FairQueue:
    return FairQueue("chat", connection=redis_client, job_class=Job, serializer="json")


def popper(server: ValkeyProcess, mode: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.popper", server.url, mode], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_several_poppers_lose_nothing_and_take_nothing_twice(queue: FairQueue, server: ValkeyProcess) -> None:
    queue.set_caps(9, 4)
    jobs = [FairJob(f"t{i % 23}__{i}", cost_gpu_s=1 + i % 5, user=f"u{i % 3}") for i in range(3_000)]
    push(queue, jobs)
    poppers = [popper(server, "work") for _ in range(4)]
    try:
        taken = Counter(job_id for process in poppers for job_id in process.communicate(timeout=DEADLINE_S)[0].split())
    finally:
        for process in poppers:
            process.kill()
    assert taken == Counter(job.job_id for job in jobs)
    assert all(process.returncode == 0 for process in poppers)
    assert queue.reconcile(0) == (0, 0)
    assert queue.pop_many(1) == []
    left = {key.decode().rpartition(":")[2] for key in queue.connection.scan_iter(keys.fair("chat", "*"))}
    assert left == {"state"}  # the caps


@pytest.mark.kill
def test_what_a_killed_popper_took_is_put_back_and_spends_no_retry(queue: FairQueue, server: ValkeyProcess) -> None:
    queue.set_caps(4, 99)
    push(queue, [FairJob(f"{tenant}__{i}", cost_gpu_s=30) for i in range(6) for tenant in ("a", "b", "c", "d")])
    for job_id in ("a__0", "d__3"):
        queue.connection.hset(Job.redis_job_namespace_prefix + job_id, "retries_left", 2)
    process = popper(server, "die")
    assert process.stdout is not None
    lost = process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()
    assert len(lost) == 16

    assert queue.pop_many(8) == []  # its slots are still taken
    assert queue.reconcile(age_s=600) == (0, 0)
    assert queue.reconcile(age_s=0) == (16, 0)
    assert queue.count == 24
    again = queue.pop_many(16)
    assert sorted(again) == sorted(lost)
    for tenant in "abcd":
        assert [job_id for job_id in again if job_id.startswith(tenant)] == [f"{tenant}__{i}" for i in range(4)]
    assert queue.connection.hget("rq:job:a__0", "retries_left") == b"2"


def test_slots_of_a_dead_workers_started_jobs_are_freed(queue: FairQueue) -> None:
    client = queue.connection
    queue.set_caps(2, 1)
    push(queue, [*(FairJob(f"a__{i}", user="u") for i in range(3)), *(FairJob(f"a__{i}", user="v") for i in (7, 8))])
    taken = queue.pop_many(4)
    start(client, queue, taken)
    assert taken == ["a__0", "a__7"]
    assert queue.reconcile(0) == (0, 0)
    assert queue.pop_many(4) == []
    client.delete(queue.started_job_registry.key)  # the leases ran out and rq's clean-up has seen to it
    assert queue.reconcile(0) == (0, 2)
    assert sorted(queue.pop_many(4)) == ["a__1", "a__8"]


def test_counts_that_went_wrong_are_put_right(queue: FairQueue) -> None:
    client = queue.connection
    queue.set_caps(2, 9)
    push(queue, [FairJob(f"a__{i}", user="u") for i in range(9)])
    start(client, queue, queue.pop_many(2))
    client.hset(keys.fair("chat", "in_flight"), mapping={"a": 7, "a u": 7, "ghost": 3})
    queue.reconcile(0)
    assert client.hgetall(keys.fair("chat", "in_flight")) == {b"a": b"2", b"a u": b"2"}
    end(client, queue, ["a__0"])
    assert queue.pop_many(9) == ["a__2"]


def test_a_clock_that_went_back_delays_the_rescue_and_no_more(queue: FairQueue) -> None:
    push(queue, [FairJob("a__0")])
    queue.pop_many(1)
    running = keys.fair("chat", "running")
    queue.connection.hset(running, "a__0", "1 0 99999999999 a ")
    assert queue.reconcile(age_s=1) == (0, 0)
    assert queue.reconcile(age_s=0) == (1, 0)


def test_an_id_that_rq_itself_popped_is_put_back_too(queue: FairQueue) -> None:
    push(queue, [FairJob("a__0")])
    queue.connection.lmove(queue.key, queue.intermediate_queue_key)
    assert queue.reconcile(age_s=1) == (0, 0)
    assert queue.reconcile(age_s=0) == (1, 0)
    assert queue.pop_many(1) == ["a__0"]


def test_a_popped_job_that_was_cancelled_is_not_put_back(queue: FairQueue) -> None:
    push(queue, [FairJob("a__0")])
    queue.pop_many(1)
    queue.connection.hset("rq:job:a__0", "status", "canceled")
    assert queue.reconcile(age_s=0) == (0, 0)
    assert queue.count == 0
    assert queue.intermediate_queue.get_job_ids() == []


class TestCommandLine:
    def rq(self, server: ValkeyProcess, *arguments: str) -> str:
        options = ("--url", server.url, "--queue-class", "workers.fair_queue.FairQueue", "--serializer", "json")
        done = subprocess.run(
            [str(Path(sys.executable).with_name("rq")), *arguments, *options],
            cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=DEADLINE_S, check=True,
        )  # fmt: skip
        return done.stdout

    def test_info_and_empty_tell_the_truth(self, queue: FairQueue, server: ValkeyProcess) -> None:
        queue.connection.sadd(queue.redis_queues_keys, queue.key)
        push(queue, [FairJob(f"a__{i}") for i in range(100)])
        queue.pop_many(10)
        assert re.search(r"queue chat 90\b", self.rq(server, "info", "--raw", "--only-queues"))
        assert "90 jobs removed" in self.rq(server, "empty", "chat")
        assert queue.is_empty()

    def test_requeue_goes_through_the_lanes(self, queue: FairQueue, server: ValkeyProcess) -> None:
        job = queue.enqueue("palaver.chat", job_id="a__0", description="-")
        queue.pop_many(1)
        end(queue.connection, queue, ["a__0"])
        queue.failed_job_registry.add(job, exc_string="-")
        self.rq(server, "requeue", "--queue", "chat", "--all")
        assert queue.pop_many(1) == ["a__0"]
