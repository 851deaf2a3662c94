"""One process tree: it restarts what dies, gives up on what cannot start, and ends in order."""

import json
import os
import signal

import pytest
import redis

from tests.jobs import ask, assert_answered, chat_request, ends, fair_queue, payload, types, wait_until
from tests.valkey import ValkeyProcess
from tests.worker_processes import Process, alive, children, config, supervisor, wait_ready
from workers import keys
from workers.supervisor import Supervisor


def test_gives_up_with_the_engines_own_words(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    with supervisor(config(server.url, missing=True)) as process:
        assert process.wait(60) == 70
        said = process.output()
    assert "No model is called 'missing'" in said
    assert "palaver models list" in said
    assert "Traceback" not in said


def test_goes_on_trying_while_the_server_is_away(restartable_server: ValkeyProcess) -> None:
    restartable_server.stop()
    with supervisor(config(restartable_server.url)) as process:
        wait_until(lambda: children(process.pid))
        (first,) = children(process.pid)
        wait_until(lambda: not alive(first), what="for the first worker to give up")
        restartable_server.start()
        with redis.Redis.from_url(restartable_server.url) as client:
            wait_ready(client)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0


def test_drains_on_sigterm(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    ids = [ask(queue, f"k{i}", tokens=30) for i in range(3)]
    with supervisor(config(server.url, step_s=0.02)) as process:
        wait_until(lambda: types(redis_client).count("started") == 3)
        (worker_pid,) = children(process.pid)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
        assert not alive(worker_pid)
    assert_answered(redis_client, ids)


def test_runs_a_worker_for_each_device(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    with supervisor(config(server.url, "a"), config(server.url, "b")) as process:
        wait_ready(redis_client, 2)
        assert len(children(process.pid)) == 2
        kinds = [json.loads(entry)["kind"] for entry in redis_client.hvals(keys.workers())]
    assert kinds == ["chat", "chat"]


def test_maintenance_puts_back_what_a_dead_worker_popped(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    job_id = ask(queue, "k1", tokens=3)
    assert queue.pop_many(1) == [job_id]  # and then this popper dies
    queue.reconcile(age_s=0)
    with supervisor(config(server.url)):
        wait_until(lambda: job_id in ends(redis_client))
    assert_answered(redis_client, [job_id])


def test_needs_a_worker() -> None:
    with pytest.raises(ValueError, match="at least one"):
        Supervisor([])


_NEWER_RELEASE = """
import sys
from workers import contract, worker_process
read = contract._decode
contract._decode = lambda model, raw: read(model, {**raw, "v": 1} if isinstance(raw, dict) else raw)
sys.exit(worker_process.main())
"""


def test_an_old_worker_leaves_newer_jobs_to_a_newer_one(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = fair_queue(redis_client)
    newer = payload(chat_request("k1", prompt=json.dumps({"tokens": 3}))) | {"v": 2}
    queue.enqueue_call("palaver.chat", kwargs={"request": newer}, job_id="t1__k1", result_ttl=600)
    with supervisor(config(server.url, "old")):
        wait_until(lambda: types(redis_client).count("retrying") >= 2, what="for it to be handed back twice")
        old = ask(queue, "k2", tokens=3)
        wait_until(lambda: old in ends(redis_client), what="for what it understands")
        new = Process(["-c", _NEWER_RELEASE, str(os.getpid())], config(server.url, "new").to_json())
        try:
            wait_until(lambda: "t1__k1" in ends(redis_client), what="for the newer worker")
        finally:
            new.end()
    assert ends(redis_client)["t1__k1"].type == "finished"
    assert redis_client.llen(keys.rejected()) == 0
