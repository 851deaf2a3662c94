"""Jobs whose worker has disappeared, and workers that had only been cut off."""

from __future__ import annotations

import pytest
import redis
from rq.job import JobStatus

from tests.jobs import ask, types
from tests.queue_ends import Worker
from workers import keys
from workers.abandoned import end_abandoned
from workers.execution_slots import Slot
from workers.outbox import OutboxJob


@pytest.fixture
def worker(redis_client: redis.Redis) -> Worker:
    return Worker(redis_client)


def run_out(client: redis.Redis, slot: Slot) -> None:
    """As if its worker had not renewed the lease for a while."""
    client.zadd("rq:wip:chat", {slot.execution.composite_key: 1}, xx=True)


@pytest.mark.parametrize("retries", [0, 2])
def test_a_job_without_its_worker_is_queued_again_or_fails(worker: Worker, retries: int) -> None:
    job_id = ask(worker.queue, "k1", retries=retries, tokens=3)
    run_out(worker.connection, worker.start())
    assert end_abandoned(worker.queue) == 1
    assert end_abandoned(worker.queue) == 0
    assert types(worker.connection) == ["started", "retrying" if retries else "failed"]
    assert worker.queue.get_job_ids() == ([job_id] if retries else [])


def test_a_renewed_lease_is_left_alone(worker: Worker) -> None:
    ask(worker.queue, "k1", tokens=3)
    worker.start()
    assert end_abandoned(worker.queue) == 0
    assert types(worker.connection) == ["started"]


def test_an_answer_that_comes_while_the_cleaning_looks_is_not_asked_for_again(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """rq's own cleaning has read "started" by then and queues the job again: answered twice, and charged twice."""
    job_id = ask(worker.queue, "k1", tokens=3)
    slot = worker.start()
    run_out(worker.connection, slot)
    requeue = OutboxJob.retry

    def meanwhile(job: OutboxJob, queue: object, pipeline: object) -> None:
        assert worker.end(slot)
        requeue(job, queue, pipeline)  # type: ignore[arg-type]

    monkeypatch.setattr(OutboxJob, "retry", meanwhile)
    assert end_abandoned(worker.queue) == 0
    assert types(worker.connection) == ["started", "finished"]
    assert worker.connection.hget(f"rq:job:{job_id}", "status") == JobStatus.FINISHED.value.encode()
    assert worker.connection.hexists(keys.live(job_id), "final")
    assert worker.queue.get_job_ids() == []


def test_an_older_execution_leaves_only_its_lease_behind(worker: Worker) -> None:
    ask(worker.queue, "k1", tokens=3)
    first = worker.start()
    run_out(worker.connection, first)
    end_abandoned(worker.queue)
    worker.queue.reconcile(age_s=0)
    second = worker.start()
    worker.connection.zadd("rq:wip:chat", {first.execution.composite_key: 1})
    assert end_abandoned(worker.queue) == 0
    assert worker.connection.zrange("rq:wip:chat", 0, -1) == [second.execution.composite_key.encode()]
    assert worker.end(second)
