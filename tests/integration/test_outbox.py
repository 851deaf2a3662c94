"""Lifecycle events: exactly one end for each life of a job, whoever ends it."""

import time

import pytest
import redis
from rq import Callback, Queue, Retry
from rq.executions import Execution
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, FailedJobRegistry, StartedJobRegistry

from tests.jobs import chat_request, events, payload, types
from workers import keys
from workers.contract import Failure, Request, UsageReport, decode_event
from workers.errors import ContractError
from workers.outbox import Ending, OutboxJob


@pytest.fixture
def queue(redis_client: redis.Redis) -> Queue:
    return Queue("chat", connection=redis_client, serializer="json", job_class=OutboxJob)


def enqueue(queue: Queue, request: Request, **options: object) -> OutboxJob:
    return queue.enqueue_call(
        "palaver.chat", kwargs={"request": payload(request)}, job_id=request.job_id, description="chat", **options
    )


def start(job: OutboxJob, lease_s: int = 30) -> Execution:
    with job.connection.pipeline() as pipeline:
        execution = Execution.create(job, lease_s, pipeline=pipeline, worker_name="w")
        job.execution_id = execution.id
        job.prepare_for_execution("w", pipeline=pipeline)
        pipeline.execute()
    return execution


def test_hash_carries_what_fair_queuing_reads(queue: Queue, redis_client: redis.Redis) -> None:
    job = enqueue(queue, chat_request())
    cost, user = redis_client.hmget(job.key, "cost_gpu_s", "user")
    assert float(cost) == 2.5
    assert user == b"u1"


def test_unique_enqueue_carries_them_as_well(queue: Queue, redis_client: redis.Redis) -> None:
    job = enqueue(queue, chat_request(), unique=True, retry=Retry(max=2))
    assert float(redis_client.hget(job.key, "cost_gpu_s")) == 2.5


def test_a_life_from_start_to_finish(queue: Queue, redis_client: redis.Redis) -> None:
    job = OutboxJob.fetch(enqueue(queue, chat_request()).id, connection=redis_client, serializer=queue.serializer)
    execution = start(job)
    job.ending = Ending(text_bytes=12, finish_reason="stop", usage=UsageReport(completion_tokens=3))
    with redis_client.pipeline() as pipeline:
        job._handle_success(60, pipeline)
        pipeline.execute()
    started, finished = events(redis_client)
    assert (started.type, started.execution_id, started.attempt) == ("started", execution.id, 1)
    assert (finished.type, finished.text_bytes, finished.finish_reason) == ("finished", 12, "stop")
    assert finished.usage is not None
    assert finished.usage.completion_tokens == 3
    assert finished.reply.handle == {"message": "7"}
    live = redis_client.hgetall(keys.live(job.id))
    assert live[b"execution_id"].decode() == execution.id
    assert decode_event(live[b"final"]) == finished
    assert redis_client.ttl(keys.live(job.id)) > 0
    assert redis_client.ttl(keys.events("term")) > 0


def test_cancel_of_a_queued_job_ends_it_once(queue: Queue, redis_client: redis.Redis) -> None:
    job = enqueue(queue, chat_request())
    job.cancel()
    assert types(redis_client) == ["cancelled"]
    again = OutboxJob.fetch(job.id, connection=redis_client, serializer=queue.serializer)
    with redis_client.pipeline() as pipeline:
        again.report_end(pipeline)
        pipeline.execute()
    assert types(redis_client) == ["cancelled"]
    assert redis_client.ttl(job.key) > 0


def test_stop_of_a_running_job_is_not_a_failure(queue: Queue, redis_client: redis.Redis) -> None:
    job = enqueue(queue, chat_request())
    execution = start(job)
    with redis_client.pipeline() as pipeline:
        job.stop(pipeline)
        execution.delete(job, pipeline)
        pipeline.execute()
    assert types(redis_client) == ["started", "cancelled"]
    assert FailedJobRegistry("chat", connection=redis_client).get_job_ids() == []
    assert job.id in CanceledJobRegistry("chat", connection=redis_client)


def test_requeue_is_a_new_life_that_may_end_again(queue: Queue, redis_client: redis.Redis) -> None:
    job = enqueue(queue, chat_request())
    start(job)
    job.ending = Ending(failure=Failure(code="boom", message="It broke."))
    with redis_client.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job._handle_failure("boom", pipeline)
        pipeline.execute()
    assert types(redis_client) == ["started", "failed"]
    assert redis_client.hexists(keys.live(job.id), "final")

    FailedJobRegistry("chat", connection=redis_client, job_class=OutboxJob, serializer="json").requeue(job.id)
    assert not redis_client.hexists(keys.live(job.id), "final")
    again = OutboxJob.fetch(job.id, connection=redis_client, serializer=queue.serializer)
    start(again)
    with redis_client.pipeline() as pipeline:
        again._handle_success(60, pipeline)
        pipeline.execute()
    assert types(redis_client) == ["started", "failed", "started", "finished"]
    assert events(redis_client)[2].attempt == 2


@pytest.mark.parametrize("retries", [0, 1])
def test_abandoned_jobs_end_once_or_are_retried(queue: Queue, redis_client: redis.Redis, retries: int) -> None:
    job = enqueue(queue, chat_request(), retry=Retry(max=retries) if retries else None)
    redis_client.delete(queue.key)  # as if it had been popped
    start(job, lease_s=5)
    registry = StartedJobRegistry("chat", connection=redis_client, job_class=OutboxJob, serializer="json")
    registry.cleanup(timestamp=time.time() + 10)
    registry.cleanup(timestamp=time.time() + 10)
    if retries:
        assert types(redis_client) == ["started", "retrying"]
        assert queue.get_job_ids() == [job.id]
    else:
        assert types(redis_client) == ["started", "failed"]
        failure = events(redis_client)[-1].failure
        assert failure is not None
        assert failure.code == "abandoned"


def test_retry_with_an_interval_is_written_with_the_pipeline_only(queue: Queue, redis_client: redis.Redis) -> None:
    job = enqueue(queue, chat_request(), retry=Retry(max=1, interval=30))
    start(job)
    with redis_client.pipeline() as pipeline:
        job.retry(queue, pipeline)
        assert redis_client.hget(job.key, "status") == b"started"
        pipeline.execute()
    assert redis_client.hget(job.key, "status") == b"scheduled"
    assert types(redis_client) == ["started", "retrying"]


def test_jobs_of_other_tools_pass_without_events(queue: Queue, redis_client: redis.Redis) -> None:
    job = queue.enqueue_call("time.time", job_id="foreign")
    start(job)
    with redis_client.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job._handle_failure("no", pipeline)
        pipeline.execute()
    with pytest.raises(ContractError, match="no request"):
        _ = job.request
    assert redis_client.keys(keys.events("*")) == []
    final = decode_event(redis_client.hget(keys.live("foreign"), "final"))
    assert final.type == "failed"


def test_a_newer_version_is_answered_at_its_address_and_kept(queue: Queue, redis_client: redis.Redis) -> None:
    raw = payload(chat_request()) | {"v": 2, "novelty": True}
    job = queue.enqueue_call("palaver.chat", kwargs={"request": raw}, job_id="t1__k1")
    with pytest.raises(ContractError, match="version"):
        _ = job.request
    job.ending = Ending(failure=Failure(code="bad_contract", message="Update the worker."))
    with redis_client.pipeline() as pipeline:
        job.set_status(JobStatus.FAILED, pipeline=pipeline)
        job._handle_failure("bad contract", pipeline)
        job.reject(pipeline)
        pipeline.execute()
    assert types(redis_client) == ["failed"]
    assert redis_client.lrange(keys.rejected(), 0, -1) == [b"t1__k1"]
    kept = Job.fetch(job.id, connection=redis_client, serializer=queue.serializer)
    assert kept.kwargs["request"]["novelty"] is True


def test_a_request_cannot_pretend_to_be_another_job(queue: Queue) -> None:
    job = queue.enqueue_call("palaver.chat", kwargs={"request": payload(chat_request(key="k2"))}, job_id="t1__k1")
    with pytest.raises(ContractError, match="another job"):
        _ = job.request


def test_names_in_a_payload_are_never_imported(queue: Queue, redis_client: redis.Redis) -> None:
    job = queue.enqueue_call(
        "os.getpid", job_id="evil", on_failure=Callback("os.getpid"), on_success=Callback("os.getpid")
    )
    job = OutboxJob.fetch(job.id, connection=redis_client, serializer=queue.serializer)
    assert job._failure_callback_name == "os.getpid"
    assert (job.success_callback, job.failure_callback, job.stopped_callback) == (None, None, None)
    with pytest.raises(ContractError):
        job.perform()
