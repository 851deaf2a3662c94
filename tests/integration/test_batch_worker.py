"""One worker process with a fast engine: many jobs in flight, each with its own end."""

import json
import signal
import time

import pytest
import redis
from rq.command import send_stop_job_command
from rq.job import JobStatus
from rq.registry import FailedJobRegistry, StartedJobRegistry
from rq.serializers import JSONSerializer
from rq.suspension import resume, suspend

from tests.jobs import (
    ask,
    assert_answered,
    chat_request,
    ends,
    events,
    fair_queue,
    job,
    payload,
    types,
    wait_until,
)
from tests.valkey import ValkeyProcess
from tests.worker_processes import alive, children, config, wait_ready, worker
from workers import keys, worker_loop
from workers.admission import Allowance, Limit, admit_now
from workers.batch_worker import BatchWorker
from workers.engine_process import EngineSpec
from workers.errors import RefusedError
from workers.settings import WorkerSettings


def status(client: redis.Redis, job_id: str) -> JobStatus:
    return job(client, job_id).get_status()


def running(client: redis.Redis) -> int:
    return sum(kind == "started" for kind in types(client))


def test_burst_answers_everything_and_leaves_nothing_behind(redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", f"t{i % 5}", tokens=6) for i in range(150)]
    settings = WorkerSettings(lease_s=5, heartbeat_s=0.5)
    assert BatchWorker(queue, EngineSpec("tests.engines:build"), settings).work(burst=True) is True
    assert_answered(redis_client, ids)
    assert queue.count == 0
    assert StartedJobRegistry("chat", connection=redis_client).get_job_ids() == []
    assert redis_client.hgetall(keys.fair("chat", "running")) == {}
    assert redis_client.hgetall(keys.fair("chat", "in_flight")) == {}
    assert redis_client.hgetall(keys.workers()) == {}
    eternal = {key.decode() for key in redis_client.scan_iter() if redis_client.ttl(key) == -1}
    registries = {"rq:queues", "rq:finished:chat"}
    assert {key for key in eternal if not key.startswith(keys.fair("chat", ""))} <= registries


def test_stop_of_one_of_64(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", f"t{i % 5}", tokens=80) for i in range(64)]
    with worker(config(server.url, step_s=0.02)):
        wait_until(lambda: running(redis_client) == 64)
        send_stop_job_command(redis_client, ids[20], serializer=JSONSerializer)
        wait_until(lambda: ids[20] in ends(redis_client))
        assert len(ends(redis_client)) == 1
        assert ends(redis_client)[ids[20]].type == "cancelled"
        assert status(redis_client, ids[20]) == JobStatus.CANCELED
        wait_until(lambda: len(ends(redis_client)) == 64)
    assert_answered(redis_client, [job_id for job_id in ids if job_id != ids[20]])
    assert types(redis_client, ids[20]) == ["started", "cancelled"]


def test_stop_whose_message_was_lost(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    running_id, queued_id = ask(queue, "k1", tokens=100_000), ask(queue, "k2", tokens=5)
    with worker(config(server.url, step_s=0.01, capacity=1)):
        wait_until(lambda: running(redis_client) == 1)
        redis_client.set(keys.cancel(running_id), "1", ex=60)
        redis_client.set(keys.cancel(queued_id), "1", ex=60)
        wait_until(lambda: len(ends(redis_client)) == 2)
    assert {event.type for event in ends(redis_client).values()} == {"cancelled"}


def test_failures_end_as_their_kind_demands(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    refused = ask(queue, "refused", tokens=3, refuse="refused")
    invalid = ask(queue, "invalid", tokens=3, refuse="invalid_request")
    flaky = ask(queue, "flaky", tokens=3, flaky=True, retries=2)
    stalled = ask(queue, "stalled", tokens=3, stall=1, retries=0, timeout_s=0.5)
    fine = ask(queue, "fine", tokens=3)
    with worker(config(server.url, step_s=0.005)):
        wait_until(lambda: len(ends(redis_client)) == 5)
    found = ends(redis_client)
    assert found[refused].type == "refused"
    assert found[invalid].failure is not None
    assert (found[invalid].type, found[invalid].failure.code) == ("failed", "invalid_request")
    assert types(redis_client, flaky) == ["started", "retrying"] * 2 + ["started", "failed"]
    assert found[stalled].failure is not None
    assert found[stalled].failure.code == "timeout"
    assert_answered(redis_client, [fine])
    failed = set(FailedJobRegistry("chat", connection=redis_client).get_job_ids())
    assert failed == {refused, invalid, flaky, stalled}


def test_a_step_that_raises_harms_only_the_job_that_makes_it_raise(
    server: ValkeyProcess, redis_client: redis.Redis, capfd: pytest.CaptureFixture[str]
) -> None:
    queue = fair_queue(redis_client)
    good = [ask(queue, f"k{i}", f"t{i % 3}", tokens=6) for i in range(6)]
    bad = ask(queue, "bad", tokens=5, fail=2)
    with worker(config(server.url, step_s=0.005)) as process:
        wait_until(lambda: types(redis_client))
        engines = children(process.pid)
        wait_until(lambda: len(ends(redis_client)) == 7)
        assert children(process.pid) == engines, "the model stays loaded"
    assert_answered(redis_client, good)
    failure = ends(redis_client)[bad].failure
    assert failure is not None
    assert failure.code == "quarantined"
    logged = capfd.readouterr().err
    assert "raised RuntimeError" in logged
    assert "the prompt must not be seen" not in logged
    assert '"key"' not in logged


def test_a_tool_cancels_a_running_job(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    cancelled = ask(queue, "k1", tokens=100_000)
    with worker(config(server.url, step_s=0.01, capacity=1)):
        wait_until(lambda: running(redis_client) == 1)
        job(redis_client, cancelled).cancel()
        following = ask(queue, "k2", tokens=3)
        wait_until(lambda: following in ends(redis_client), what="for the slot to be free")
    assert types(redis_client, cancelled) == ["started", "cancelled"]


def test_stop_of_a_running_job_refunds_its_limits(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    once = [Limit(keys.limit("chat", "user", "u"), Allowance("user", per_minute=0.01, burst=1))]
    admit_now(redis_client, "t1__k1", once)
    job_id = ask(queue, "k1", tokens=100_000)
    with worker(config(server.url, step_s=0.01)):
        wait_until(lambda: running(redis_client) == 1)
        with pytest.raises(RefusedError):
            admit_now(redis_client, "t1__k2", once)
        send_stop_job_command(redis_client, job_id, serializer=JSONSerializer)
        wait_until(lambda: job_id in ends(redis_client))
    admit_now(redis_client, "t1__k2", once)


def test_bad_payloads_are_refused_and_kept(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    older = payload(chat_request("older")) | {"v": 0, "novelty": 1}
    queue.enqueue_call("palaver.chat", kwargs={"request": older}, job_id="t1__older")
    queue.enqueue_call("os.getpid", kwargs={"request": payload(chat_request("evil"))}, job_id="t1__evil")
    queue.enqueue_call("palaver.chat", args=(1, 2), job_id="foreign")
    redis_client.hset("rq:job:t1__older", "user", "u1")
    with worker(config(server.url)):
        fine = ask(queue, "fine", tokens=3)
        wait_until(lambda: fine in ends(redis_client) and redis_client.llen(keys.rejected()) == 3)
    found = ends(redis_client)
    for job_id in ("t1__older", "t1__evil"):
        failure = found[job_id].failure
        assert failure is not None
        assert failure.code == "bad_contract"
    assert set(redis_client.lrange(keys.rejected(), 0, -1)) == {b"t1__older", b"t1__evil", b"foreign"}
    assert job(redis_client, "t1__older").kwargs["request"]["novelty"] == 1


def test_sigterm_drains(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", tokens=30) for i in range(6)]
    with worker(config(server.url, step_s=0.02, capacity=4)) as process:
        wait_until(lambda: running(redis_client) == 4)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert_answered(redis_client, ids[:4])
    assert len(ends(redis_client)) == 4
    assert queue.count == 2


def test_a_second_signal_gives_back_to_the_head(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", tokens=100_000) for i in range(4)]
    with worker(config(server.url, step_s=0.02, capacity=3)) as process:
        wait_until(lambda: running(redis_client) == 3)
        (engine,) = children(process.pid)
        process.signal(signal.SIGTERM)
        time.sleep(0.2)
        assert alive(process.pid)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not alive(engine)
    assert ends(redis_client) == {}
    assert queue.pop_many(4) == ids
    assert [job(redis_client, job_id).retries_left for job_id in ids] == [2] * 4
    assert {status(redis_client, job_id) for job_id in ids} == {JobStatus.QUEUED}


def test_suspend_and_resume(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    with worker(config(server.url)):
        wait_ready(redis_client)
        suspend(redis_client)
        time.sleep(worker_loop.SUSPENSION_CHECK_S + 0.3)
        job_id = ask(queue, "k1", tokens=3)
        time.sleep(0.5)
        assert status(redis_client, job_id) == JobStatus.QUEUED
        resume(redis_client)
        wait_until(lambda: job_id in ends(redis_client))
    assert_answered(redis_client, [job_id])


def test_a_hung_engine_is_replaced(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    hung = ask(queue, "hung", tokens=5, hang=2)
    with worker(config(server.url, worker={"engine_silence_s": 1.0})) as process:
        wait_until(lambda: hung in ends(redis_client))
        fine = ask(queue, "fine", tokens=5)
        wait_until(lambda: fine in ends(redis_client))
        assert alive(process.pid)
    failure = ends(redis_client)[hung].failure
    assert failure is not None
    assert failure.code == "quarantined"


def test_worker_tells_what_it_runs(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    with worker(config(server.url, capacity=7)):
        wait_ready(redis_client)
        (entry,) = map(json.loads, redis_client.hvals(keys.workers()))
    assert entry["kind"] == "chat"
    assert entry["engine"]["model"] == "words"
    assert entry["engine"]["capacity"] == 7


def test_the_first_word_does_not_wait_for_the_answer(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    with worker(config(server.url, worker={"flush_ms": 5_000}, step_s=0.05)):
        job_id = ask(queue, "k1", tokens=60)
        wait_until(lambda: events(redis_client))
        key = keys.text(str(events(redis_client)[0].execution_id))
        wait_until(lambda: redis_client.strlen(key) > 0)
        assert job_id not in ends(redis_client)
        assert redis_client.strlen(key) < 100
