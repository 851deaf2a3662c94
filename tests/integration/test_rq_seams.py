"""Pins every private or undocumented seam of rq 3.0 (and redis-py 8) that the worker stands on.

A release that changes one of them fails here, by name, before it fails in a queue.
"""

import inspect
import json
import signal
from importlib.metadata import version

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry as ConnectionRetry
from rq import Queue, Retry, worker_registration
from rq.command import PUBSUB_CHANNEL_TEMPLATE, parse_payload, send_stop_job_command
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry, StartedJobRegistry, clean_registries
from rq.results import Result
from rq.scheduler import RQScheduler
from rq.serializers import JSONSerializer
from rq.suspension import WORKERS_SUSPENDED, suspend
from rq.worker import BaseWorker, Worker

EXECUTION = ("worker_name", "execution_id", "execution_started_at", "execution_ended_at")


def parameters(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]  # any callable


def test_versions() -> None:
    assert version("rq").startswith("3.0.")
    assert version("redis").startswith("8.")


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (Job.prepare_for_execution, ["self", "worker_name", "pipeline"]),
        (Job.set_status, ["self", "status", "pipeline"]),
        (Job.retry, ["self", "queue", "pipeline"]),
        (Job.to_dict, ["self", "include_meta", "include_result"]),
        (Job.restore, ["self", "raw_data"]),
        (Job.fetch_many, ["job_ids", "connection", "serializer"]),
        (Job.get_retry_interval, ["self"]),
        (
            Job._handle_success,
            [
                "self",
                "result_ttl",
                "pipeline",
                "worker_name",
                "execution_id",
                "execution_started_at",
                "execution_ended_at",
            ],
        ),
        (
            Job._handle_failure,
            [
                "self",
                "exc_string",
                "pipeline",
                "worker_name",
                "execution_id",
                "execution_started_at",
                "execution_ended_at",
            ],
        ),
        (Execution.create, ["job", "ttl", "pipeline", "worker_name"]),
        (Execution.delete, ["self", "job", "pipeline"]),
        (Execution.heartbeat, ["self", "started_job_registry", "ttl", "pipeline"]),
        (ExecutionRegistry.add, ["self", "execution", "ttl", "pipeline", "xx"]),
        (
            Result.create,
            [
                "job",
                "type",
                "ttl",
                "return_value",
                "exc_string",
                "worker_name",
                "pipeline",
                "execution_id",
                "execution_started_at",
                "execution_ended_at",
            ],
        ),
        (Queue.push_job_id, ["self", "job_id", "pipeline", "at_front"]),
        (Queue.schedule_job, ["self", "job", "datetime", "pipeline", "unique"]),
        (BaseWorker.request_stop_execution, ["self", "execution_id"]),
        (BaseWorker.handle_payload, ["self", "message"]),
        (BaseWorker.heartbeat, ["self", "timeout", "pipeline"]),
        (BaseWorker.set_state, ["self", "state", "pipeline"]),
        (BaseWorker.kill_horse, ["self", "sig"]),
        (BaseWorker._set_connection, ["self", "connection"]),
        (BaseWorker.request_stop, ["self", "signum", "frame"]),
        (BaseWorker.request_force_stop, ["self", "signum", "frame"]),
        (worker_registration.register, ["worker", "pipeline"]),
        (clean_registries, ["queue", "exception_handlers"]),
        (RQScheduler.enqueue_scheduled_jobs, ["self"]),
    ],
    ids=lambda value: getattr(value, "__qualname__", ""),
)
def test_signatures(function: object, expected: list[str]) -> None:
    assert parameters(function) == expected


@pytest.fixture
def queue(redis_client: redis.Redis) -> Queue:
    return Queue("chat", connection=redis_client, serializer=JSONSerializer)


def enqueue(queue: Queue, **options: object) -> Job:
    return queue.enqueue_call("some.function", job_id="j1", **options)


def start(job: Job, client: redis.Redis) -> Execution:
    with client.pipeline() as pipeline:
        execution = Execution.create(job, 30, pipeline=pipeline, worker_name="w")
        job.prepare_for_execution("w", pipeline=pipeline)
        pipeline.execute()
    return execution


def test_a_lease_is_a_score_in_the_wip_registry(queue: Queue, redis_client: redis.Redis) -> None:
    execution = start(enqueue(queue), redis_client)
    assert StartedJobRegistry.key_template.format("chat") == "rq:wip:chat"
    assert execution.composite_key == f"j1:{execution.id}"
    assert redis_client.zscore("rq:wip:chat", execution.composite_key) is not None
    with redis_client.pipeline() as pipeline:
        execution.delete(Job.fetch("j1", redis_client, JSONSerializer), pipeline)
        pipeline.execute()
    assert redis_client.zscore("rq:wip:chat", execution.composite_key) is None


def test_a_heartbeat_never_brings_a_lost_lease_back(queue: Queue, redis_client: redis.Redis) -> None:
    execution = start(enqueue(queue), redis_client)
    redis_client.delete("rq:wip:chat")
    with redis_client.pipeline() as pipeline:
        execution.heartbeat(queue.started_job_registry, 30, pipeline=pipeline)
        pipeline.execute()
    assert redis_client.exists("rq:wip:chat") == 0


def test_a_start_writes_status_into_the_job_hash(queue: Queue, redis_client: redis.Redis) -> None:
    start(enqueue(queue), redis_client)
    assert redis_client.hmget("rq:job:j1", "status", "worker_name") == [b"started", b"w"]


def test_clean_up_retries_an_abandoned_job_through_its_class(queue: Queue, redis_client: redis.Redis) -> None:
    start(enqueue(queue, retry=Retry(max=1)), redis_client)
    redis_client.delete("rq:queue:chat")
    redis_client.zadd("rq:wip:chat", {redis_client.zrange("rq:wip:chat", 0, 0)[0]: 1})
    retried: list[str] = []

    class Watched(Job):
        def retry(self, queue: Queue, pipeline: redis.client.Pipeline) -> None:
            retried.append(self.id)
            super().retry(queue, pipeline)

    StartedJobRegistry("chat", connection=redis_client, job_class=Watched, serializer=JSONSerializer).cleanup()
    assert retried == ["j1"]
    assert redis_client.lrange("rq:queue:chat", 0, -1) == [b"j1"]


def test_every_way_back_to_the_queue_goes_through_set_status(queue: Queue, redis_client: redis.Redis) -> None:
    seen: list[tuple[JobStatus, bool]] = []

    class Watched(Job):
        def set_status(self, status: JobStatus, pipeline: redis.client.Pipeline | None = None) -> None:
            seen.append((status, pipeline is not None))
            super().set_status(status, pipeline=pipeline)

    job = enqueue(queue, retry=Retry(max=1))
    watched = Watched.fetch(job.id, connection=redis_client, serializer=JSONSerializer)
    with redis_client.pipeline() as pipeline:
        watched.retry(queue, pipeline)
        pipeline.execute()
    watched.cancel()
    assert seen == [(JobStatus.QUEUED, True), (JobStatus.CANCELED, True)]
    assert CanceledJobRegistry("chat", connection=redis_client).get_job_ids() == ["j1"]


def test_stop_is_a_message_on_the_workers_channel(queue: Queue, redis_client: redis.Redis) -> None:
    start(enqueue(queue), redis_client)
    with redis_client.pubsub() as listener:
        listener.subscribe(PUBSUB_CHANNEL_TEMPLATE % "w")
        listener.get_message(timeout=5)
        send_stop_job_command(redis_client, "j1", serializer=JSONSerializer)
        message = listener.get_message(timeout=5)
    assert message is not None
    assert parse_payload(message) == {"command": "stop-job", "job_id": "j1"}
    assert json.loads(message["data"]) == {"command": "stop-job", "job_id": "j1"}


def test_suspension_is_one_key(redis_client: redis.Redis) -> None:
    suspend(redis_client)
    assert redis_client.exists(WORKERS_SUSPENDED) == 1


def test_signal_handlers_are_methods_that_may_be_overridden() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    seen: list[int] = []

    class Watched(BaseWorker):
        def __init__(self) -> None:
            """Without a connection."""

        def request_stop(self, signum: int, frame: object) -> None:
            seen.append(signum)

    try:
        Watched()._install_signal_handlers()
        signal.raise_signal(signal.SIGTERM)
        assert seen == [signal.SIGTERM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_worker_registers_and_serializes_itself(redis_client: redis.Redis) -> None:
    worker = Worker(["chat"], connection=redis_client, serializer=JSONSerializer, name="w9")
    worker.register_birth()
    assert {"birth", "last_heartbeat", "queues", "pid"} <= worker.serialize().keys()
    assert redis_client.sismember("rq:workers", "rq:worker:w9")
    worker.register_death()
    assert not redis_client.sismember("rq:workers", "rq:worker:w9")


def test_a_client_can_be_told_never_to_repeat_a_command(redis_client: redis.Redis) -> None:
    """A MULTI whose reply was lost must surface as an error, for it may have been applied."""
    redis_client.set_retry(ConnectionRetry(NoBackoff(), 0))
    assert redis_client.get_retry()._retries == 0
    with redis_client.pipeline() as pipeline:
        pipeline.watch("a")
        redis_client.set("a", 1)
        pipeline.multi()
        pipeline.set("b", 1)
        with pytest.raises(redis.WatchError):
            pipeline.execute()
    assert redis_client.exists("b") == 0
