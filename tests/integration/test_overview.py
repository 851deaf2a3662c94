from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time

import pytest

from bots.overview import holds_slot, queue_of, server_of, workers_of
from bots.up_lock import AlreadyRunningError, in_use, only_one, running_pid, set_keep, wait_until_ended
from tests.jobs import wait_until
from tests.worker_processes import config, wait_ready, worker
from workers import keys


def entry(**changes: object) -> str:
    fields = {
        "kind": "chat",
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "engine": None,
        "progress": "loading the weights 40%",
        "in_flight": 0,
        "at_s": time.time(),
    }
    return json.dumps(fields | changes)


def test_a_worker_that_loads_is_not_ready(redis_client):
    redis_client.hset(keys.workers(), "w", entry())
    (found,) = workers_of(redis_client)
    assert (found.ready, found.state) == (False, "loading the weights 40%")


def test_a_real_worker_is_listed_and_gone_when_it_is_killed(server, redis_client):
    with worker(config(server.url)) as process:
        wait_ready(redis_client)
        (found,) = workers_of(redis_client, "chat")
        assert (found.ready, found.state, found.pid) == (True, "ready", process.pid)
        assert workers_of(redis_client, "image") == []
        process.kill9()
        assert workers_of(redis_client) == [], "although its entry is still there"
        assert redis_client.hlen(keys.workers()) == 1


@pytest.mark.parametrize(
    ("changes", "listed"),
    [
        ({}, True),
        ({"at_s": time.time() - 3_600}, False),
        ({"pid": 2**22 + 1}, False),
        ({"pid": 2**22 + 1, "host": "elsewhere"}, True),
    ],
)
def test_silent_and_ended_workers_do_not_count(redis_client, changes, listed):
    redis_client.hset(keys.workers(), "w", entry(**changes))
    assert bool(workers_of(redis_client)) == listed


def test_the_queue_tells_who_waits(redis_client):
    redis_client.rpush("rq:queue:chat", "a__1", "b__1", "a__2", "a__3")
    found = queue_of(redis_client, "chat")
    assert (found.queued, list(found.tenants.items())) == (4, [("a", 3), ("b", 1)])
    assert not holds_slot(redis_client, "chat", "a__1")


def test_the_server_tells_what_it_is(redis_client):
    found = server_of(redis_client, embedded=False)
    assert found.version.startswith("Valkey 9.")
    assert not found.durable, "the tests' server keeps nothing"
    assert found.memory_bytes > 0


UP = """
import sys, time
from pathlib import Path
from bots.up_lock import Users, only_one
data_dir = Path(sys.argv[1])
with only_one(data_dir):
    users = Users(data_dir)
    while not users.gone():
        time.sleep(0.02)
"""


@pytest.fixture
def up(tmp_path):
    process = None

    def start() -> subprocess.Popen[bytes]:
        nonlocal process
        process = subprocess.Popen([sys.executable, "-c", UP, str(tmp_path)])
        return process

    yield start
    if process and process.poll() is None:
        process.kill()
    if process:
        process.wait()


def test_a_tree_ends_with_its_last_user(up, tmp_path):
    with in_use(tmp_path):
        process = up()
        wait_until(lambda: running_pid(tmp_path) == process.pid)
        with in_use(tmp_path):
            pass
        assert not wait_until_ended(tmp_path, 5), "somebody else uses it"
        time.sleep(0.2)
        assert process.poll() is None
    assert wait_until_ended(tmp_path, 30)
    assert process.wait(10) == 0
    assert running_pid(tmp_path) is None


def test_a_tree_that_is_kept_outlives_its_users(up, tmp_path):
    set_keep(tmp_path, keep=True)
    with in_use(tmp_path):
        process = up()
        wait_until(lambda: running_pid(tmp_path) == process.pid)
    assert not wait_until_ended(tmp_path, 30)
    time.sleep(0.2)
    assert process.poll() is None
    set_keep(tmp_path, keep=False)
    assert process.wait(10) == 0


def test_there_is_one_tree_and_a_killed_one_leaves_no_trace(up, tmp_path):
    with in_use(tmp_path):
        process = up()
        wait_until(lambda: running_pid(tmp_path) == process.pid)
        with pytest.raises(AlreadyRunningError, match=str(process.pid)), only_one(tmp_path):
            raise AssertionError("two at once")
        process.kill()
        process.wait()
        assert running_pid(tmp_path) is None
        with only_one(tmp_path):
            assert running_pid(tmp_path) == os.getpid()
