"""kill -9 and frozen processes: every answer arrives once and complete, whatever dies."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import redis
from rq.command import send_stop_job_command
from rq.serializers import JSONSerializer

from tests.jobs import ask, assert_answered, ends, events, fair_queue, job, types, wait_until
from tests.valkey import ValkeyProcess
from tests.worker_processes import LEASE_S, alive, children, config, supervisor, worker
from workers import keys
from workers.maintenance import Maintenance

pytestmark = pytest.mark.kill


def started(client: redis.Redis, count: int) -> bool:
    return sum(kind == "started" for kind in types(client)) >= count


def speaking(client: redis.Redis) -> bool:
    """Some answer has reached the reader in part."""
    return any(client.strlen(key) > 20 for key in client.scan_iter(keys.text("*")))


def test_engine_killed_in_mid_answer(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", f"t{i % 3}", tokens=40) for i in range(12)]
    with worker(config(server.url, step_s=0.02)) as process:
        wait_until(lambda: speaking(redis_client))
        (engine,) = children(process.pid)
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: len(ends(redis_client)) == 12)
        assert alive(process.pid)
    assert_answered(redis_client, ids)
    assert "retrying" in types(redis_client)
    assert job(redis_client, ids[0]).retries_left == 2, "an engine's death spends no retry"


def test_worker_killed_in_mid_answer(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", f"t{i % 3}", tokens=30) for i in range(12)]
    janitor = Maintenance(fair_queue(redis_client))
    with worker(config(server.url, "first", step_s=0.02)) as first:
        wait_until(lambda: speaking(redis_client))
        (engine,) = children(first.pid)
        first.kill9()
        wait_until(lambda: not alive(engine), what="for the engine to die with its worker")
    with worker(config(server.url, "second")):
        wait_until(lambda: janitor.tick() and len(ends(redis_client)) == 12)
    assert_answered(redis_client, ids)


def test_supervisor_killed_takes_everything_along(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", tokens=30) for i in range(4)]
    with supervisor(config(server.url, "first", step_s=0.05)) as first:
        wait_until(lambda: speaking(redis_client))
        (worker_pid,) = children(first.pid)
        (engine_pid,) = children(worker_pid)
        first.kill9()
        wait_until(lambda: not alive(worker_pid) and not alive(engine_pid), what="for the tree to die")
    assert len(ends(redis_client)) < 4
    with supervisor(config(server.url, "second")) as second:
        wait_until(lambda: len(ends(redis_client)) == 4)
        second.signal(signal.SIGTERM)
        assert second.wait() == 0
    assert_answered(redis_client, ids)


def test_supervisor_restarts_a_killed_worker(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", tokens=30) for i in range(4)]
    with supervisor(config(server.url, step_s=0.05)) as process:
        wait_until(lambda: speaking(redis_client))
        os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_until(lambda: len(ends(redis_client)) == 4)
    assert_answered(redis_client, ids)


def test_a_worker_frozen_beyond_its_lease_writes_nothing(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    job_id = ask(queue, "k1", tokens=30)
    janitor = Maintenance(fair_queue(redis_client))
    with worker(config(server.url, "frozen", step_s=0.03)) as frozen:
        wait_until(lambda: speaking(redis_client))
        frozen.signal(signal.SIGSTOP)
        (old,) = [event.execution_id for event in events(redis_client)]
        old_text = redis_client.get(keys.text(str(old)))
        with worker(config(server.url, "other")):
            wait_until(lambda: janitor.tick() and len(ends(redis_client)) == 1)
            state = redis_client.hgetall(f"rq:job:{job_id}")
            frozen.signal(signal.SIGCONT)
            time.sleep(LEASE_S)
            assert redis_client.hgetall(f"rq:job:{job_id}") == state
            assert redis_client.get(keys.text(str(old))) == old_text
            # The thawed worker is well and takes the next job.
            ids = [ask(queue, f"n{i}", tokens=5) for i in range(8)]
            wait_until(lambda: len(ends(redis_client)) == 9)
    assert_answered(redis_client, [job_id, *ids])


def test_server_killed_and_restarted(restartable_server: ValkeyProcess) -> None:
    with redis.Redis.from_url(restartable_server.url) as client:
        queue = fair_queue(client)
        ids = [ask(queue, f"k{i}", f"t{i % 3}", tokens=60) for i in range(12)]
        with supervisor(config(restartable_server.url, worker={"lease_s": 20}, step_s=0.02)):  # outlasts the outage
            wait_until(lambda: speaking(client))
            restartable_server.kill9()
            time.sleep(1.0)  # answers end meanwhile
            restartable_server.start()
            wait_until(lambda: len(ends(client)) == 12)
            assert_answered(client, ids)
            assert [event.attempt for event in ends(client).values()] == [1] * 12, "the engine went on"
            late = ask(queue, "late", tokens=3)
            wait_until(lambda: late in ends(client), what="for a new job after the outage")


@pytest.mark.parametrize("kept_since", ["enqueued", "speaking"])
def test_server_that_lost_its_last_second(restartable_server: ValkeyProcess, kept_since: str) -> None:
    """Everything written since a moment is gone: starts, texts, and ends that were confirmed."""
    with redis.Redis.from_url(restartable_server.url) as client:
        queue = fair_queue(client)
        ids = [ask(queue, f"k{i}", tokens=60 + 10 * i) for i in range(4)]
        (log,) = (restartable_server.directory / "appendonlydir").glob("*.incr.aof")
        client.waitaof(1, 0, 10_000)
        kept_bytes = log.stat().st_size
        with worker(config(restartable_server.url, step_s=0.02)):
            wait_until(lambda: speaking(client))
            kept_bytes = log.stat().st_size if kept_since == "speaking" else kept_bytes
            wait_until(lambda: len(ends(client)) == 2)
            restartable_server.kill9()
            os.truncate(log, kept_bytes)
            assert b'"finished"' not in log.read_bytes()
            restartable_server.start()
            wait_until(lambda: len(ends(client)) == 4)
            assert_answered(client, ids)


def fill_memory(client: redis.Redis) -> Callable[[], object]:
    client.config_set("maxmemory", "1mb")
    return lambda: client.config_set("maxmemory", "0")


def fill_disk(client: redis.Redis) -> Callable[[], object]:
    """A server that cannot save says MISCONF to every write, as when its disk is full."""
    client.config_set("save", "3600 1")
    (Path(client.config_get("dir")["dir"]) / "dump.rdb").mkdir()  # no file can take its place
    client.bgsave()
    wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err")
    return lambda: client.config_set("stop-writes-on-bgsave-error", "no")


@pytest.mark.parametrize("fill", [fill_memory, fill_disk])
def test_answers_outlast_a_server_that_takes_no_writes(
    fill: Callable[[redis.Redis], Callable[[], object]],
) -> None:
    server = ValkeyProcess(persist=True).start()
    try:
        with redis.Redis.from_url(server.url) as client:
            queue = fair_queue(client)
            ids = [ask(queue, f"k{i}", tokens=40 + 20 * i) for i in range(6)]
            with worker(config(server.url, step_s=0.01)) as process:
                wait_until(lambda: speaking(client))
                make_room = fill(client)
                time.sleep(1.5)  # answers end meanwhile
                make_room()
                wait_until(lambda: len(ends(client)) == 6)
                assert alive(process.pid)
                assert [event.attempt for event in ends(client).values()] == [1] * 6, "the engine went on"
            assert_answered(client, ids)
    finally:
        server.remove()


def assert_quarantined(client: redis.Redis, job_id: str) -> None:
    """It killed the engine twice and no more, and its user is told."""
    assert types(client, job_id) == ["started", "retrying", "started", "failed"]
    failure = ends(client)[job_id].failure
    assert failure is not None
    assert failure.code == "quarantined"
    assert "crashed 2 times" in failure.message


@pytest.mark.parametrize("place", [0, 3, 25])
def test_poison_is_quarantined_at_its_second_death_and_its_neighbours_finish(
    server: ValkeyProcess, redis_client: redis.Redis, place: int
) -> None:
    queue = fair_queue(redis_client)
    good = [ask(queue, f"k{i}", f"t{i % 4}", tokens=4 + 4 * i) for i in range(7)]
    poison = ask(queue, "poison", "t9", tokens=50, kill=place)
    good += [ask(queue, f"l{i}", f"t{i % 4}", tokens=8) for i in range(7)]
    with worker(config(server.url, step_s=0.01, capacity=16)) as process:
        wait_until(lambda: len(ends(redis_client)) == 15)
        after = ask(queue, "after", tokens=3)
        wait_until(lambda: after in ends(redis_client))
        assert alive(process.pid)
    assert_answered(redis_client, [*good, after])
    assert_quarantined(redis_client, poison)


def test_poison_that_comes_again_and_again_harms_nobody_else(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    good, poisons = [], []
    for number in range(9):
        good.append(ask(queue, f"k{number}", f"t{number % 4}", tokens=30))
        if number % 3 == 0:
            poisons.append(ask(queue, f"p{number}", "t9", tokens=30, kill=5))
    with worker(config(server.url, step_s=0.01, capacity=8)):
        wait_until(lambda: len(ends(redis_client)) == 12, timeout_s=60)
    assert_answered(redis_client, good)
    assert {ends(redis_client)[poison].type for poison in poisons} == {"failed"}


def test_an_engine_that_is_killed_again_and_again_from_outside_costs_nobody_the_answer(
    server: ValkeyProcess, redis_client: redis.Redis
) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", f"t{i % 3}", tokens=30 + 10 * i) for i in range(8)]
    with worker(config(server.url, step_s=0.01)) as process:
        for finished in (1, 3, 5):  # not in the middle of a trial
            wait_until(lambda finished=finished: len(ends(redis_client)) >= finished and children(process.pid))
            os.kill(children(process.pid)[0], signal.SIGKILL)
        wait_until(lambda: len(ends(redis_client)) == 8)
    assert_answered(redis_client, ids)


def test_stop_by_message_still_works_after_the_server_was_away(restartable_server: ValkeyProcess) -> None:
    with redis.Redis.from_url(restartable_server.url) as client:
        queue = fair_queue(client)
        job_id = ask(queue, "k1", tokens=100_000)
        with worker(config(restartable_server.url, step_s=0.02)):
            wait_until(lambda: speaking(client))
            restartable_server.kill9()
            restartable_server.start()

            def stopped() -> bool:
                send_stop_job_command(client, job_id, serializer=JSONSerializer)
                time.sleep(0.2)
                return job_id in ends(client)

            wait_until(stopped)
        assert types(client, job_id) == ["started", "cancelled"]
