"""rq's own command line keeps working on our queues, also without our classes."""

import subprocess
import sys

import redis
from rq.job import Job, JobStatus
from rq.registry import FailedJobRegistry
from rq.serializers import JSONSerializer

from tests.jobs import ask, assert_answered, ends, fair_queue, job, types, wait_until
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, wait_ready, worker
from workers.maintenance import Maintenance


def rq(server: ValkeyProcess, *arguments: str) -> str:
    command = [sys.executable, "-m", "rq.cli", arguments[0], "--url", server.url, *arguments[1:]]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


def test_info_shows_queue_and_worker(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    for index in range(5):
        ask(queue, f"k{index}", tokens=100_000)
    with worker(config(server.url, "shown", step_s=0.01, capacity=2)):
        wait_ready(redis_client)
        wait_until(lambda: types(redis_client).count("started") == 2)
        shown = rq(server, "info", "--raw", "--queue-class", "workers.fair_queue.FairQueue")
    assert "queue chat 3" in shown
    assert "worker shown-" in shown
    assert "busy chat" in shown


def test_requeue_of_a_failed_job(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    job_id = ask(queue, "k1", tokens=4, refuse="invalid_request", retries=0)
    with worker(config(server.url)):
        wait_until(lambda: job_id in ends(redis_client))
        assert types(redis_client) == ["started", "failed"]
        shown = rq(server, "requeue", "--queue", "chat", "-S", "json", job_id)
        assert "Requeueing 1 jobs" in shown
        wait_until(lambda: types(redis_client).count("failed") == 2)
    assert types(redis_client) == ["started", "failed"] * 2
    assert FailedJobRegistry("chat", connection=redis_client).get_job_ids() == [job_id]


def test_suspend_and_resume(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    rq(server, "suspend")
    job_id = ask(queue, "k1", tokens=3)
    with worker(config(server.url)):
        wait_ready(redis_client)
        assert job(redis_client, job_id).get_status() == JobStatus.QUEUED
        rq(server, "resume")
        wait_until(lambda: job_id in ends(redis_client))
    assert_answered(redis_client, [job_id])


def test_ends_made_by_tools_without_our_class_are_told(redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    cancelled, untouched = ask(queue, "k1"), ask(queue, "k2")
    Job.fetch(cancelled, connection=redis_client, serializer=JSONSerializer).cancel()
    assert types(redis_client) == []
    janitor = Maintenance(queue)
    assert janitor.tick()
    assert janitor.tick()
    assert types(redis_client) == ["cancelled"]
    assert untouched not in ends(redis_client)


def test_a_retry_with_an_interval_comes_back(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    job_id = ask(queue, "k1", flaky=True, retries=1)
    redis_client.hset(f"rq:job:{job_id}", "retry_intervals", "[1]")
    janitor = Maintenance(fair_queue(redis_client))
    with worker(config(server.url)):
        wait_until(lambda: janitor.tick() and job_id in ends(redis_client))
    assert types(redis_client) == ["started", "retrying", "started", "failed"]
