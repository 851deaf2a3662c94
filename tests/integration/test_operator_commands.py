"""``palaver jobs``, ``top`` and ``doctor`` as an operator runs them, on a real server and real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import redis

from tests.jobs import ask, assert_answered, ends, fair_queue, wait_until
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, wait_ready, worker


class Operator:
    """Somebody at a shell, with nothing of this machine's settings."""

    def __init__(self, url: str, directory: Path) -> None:
        foreign = ("PALAVER_", "REDIS", "DISCORD_", "SLACK_", "HTTP", "OMP_", "GOMP_")
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(foreign)}
        self.environment = own | {"PALAVER_DATA_DIR": str(directory), "REDIS_URL": url, "NO_PROXY": "127.0.0.1"}

    def __call__(self, *arguments: str, code: int = 0, **more: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "bots.cli", *arguments],
            env=self.environment | more,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stderr or done.stdout
        return done.stderr if code and not done.stdout else done.stdout


@pytest.fixture
def operator(server: ValkeyProcess, tmp_path: Path) -> Operator:
    return Operator(server.url, tmp_path)


def test_jobs_are_shown_stopped_and_run_again(
    server: ValkeyProcess, redis_client: redis.Redis, operator: Operator
) -> None:
    queue = fair_queue(redis_client)
    failing, waiting = ask(queue, "k1", retries=0, refuse="no"), ask(queue, "k2", tokens=3)
    assert "It waited and will not run." in operator("jobs", "cancel", waiting)
    with worker(config(server.url)):
        wait_until(lambda: failing in ends(redis_client))
        shown = json.loads(operator("jobs", "show", failing, "--json"))
        assert (shown["status"], shown["ended"], shown["failure_code"]) == ("failed", "failed", "no")
        assert (shown["tenant"], shown["kind"], shown["user"]) == ("t1", "chat", "u-k1")
        assert "refuse" not in json.dumps(shown), "what was asked is nobody's business"
        redis_client.delete("palaver:events:term")
        assert "queued again" in operator("jobs", "requeue", waiting)
        wait_until(lambda: waiting in ends(redis_client))
        assert_answered(redis_client, [waiting])
        assert "only failed and cancelled" in operator("jobs", "requeue", waiting, code=77)
    assert "There is no job" in operator("jobs", "show", "t1__none", code=66)


def test_top_shows_queues_workers_and_tenants(
    server: ValkeyProcess, redis_client: redis.Redis, operator: Operator
) -> None:
    queue = fair_queue(redis_client)
    with worker(config(server.url, capacity=2)):
        wait_ready(redis_client)
        for i in range(4):
            ask(queue, f"k{i}", tenant=f"t{i % 2}", tokens=100_000, step_s=0.01)
        wait_until(lambda: redis_client.hlen("palaver:fair:chat:running") == 2)
        moment = json.loads(operator("top", "--once", "--json", "--interval-s", "0.1"))
        text = operator("top", "--once", "--interval-s", "0.1", COLUMNS="140")
    assert moment["queues"][0]["queued"] == 2
    assert moment["oldest_s"]["chat"] > 0
    assert [(each["running"], each["queued"]) for each in moment["tenants"]] == [(1, 1), (1, 1)]
    (running,) = moment["workers"]
    assert running["engine"]["capacity"] == 2
    assert moment["jobs_per_s"]["chat"] == 0
    assert "words" in text
    assert "t1" in text


class _Platform(BaseHTTPRequestHandler):
    """Takes one Discord token and one Slack token."""

    def do_GET(self) -> None:
        self._say(200 if self.headers["Authorization"] == "Bot good" else 401, {"id": "1"})

    def do_POST(self) -> None:
        good = self.headers["Authorization"] == "Bearer xoxb-good"
        self._say(200, {"ok": good, "error": "invalid_auth"})

    def _say(self, status: int, body: dict[str, object]) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def platform_url() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Platform) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def test_the_doctor_finds_what_is_wrong_and_says_what_to_do(operator: Operator, platform_url: str) -> None:
    tokens = {
        "DISCORD_API_BASE_URL": platform_url,
        "SLACK_API_BASE_URL": f"{platform_url}/api/",
        "DISCORD_TOKEN": "good",
        "SLACK_BOT_TOKEN": "xoxb-good",
    }

    def findings(code: int, **changes: str) -> dict[str, tuple[str, str]]:
        found = json.loads(operator("doctor", "--json", code=code, **tokens | changes))
        return {each["name"]: (each["level"], each["remedy"]) for each in found}

    well = findings(0)
    assert well["redis"][0] == well["clock"][0] == well["discord token"][0] == well["slack token 1"][0] == "ok"
    assert well["redis persistence"][0] == "warning", "the tests' server keeps nothing"
    assert "appendonly" in well["redis persistence"][1]
    ill = findings(
        78, DISCORD_TOKEN="bad", SLACK_BOT_TOKEN="xoxb-bad", PALAVER_CHAT__MODEL="smolm2", PALAVER_CHAT__DEVICE="cuda:7"
    )
    assert [name for name, (level, _) in ill.items() if level == "error"] == [
        "devices",
        "chat model",
        "discord token",
        "slack token 1",
    ]
    assert all(remedy for level, remedy in ill.values() if level != "ok")
    gone = findings(78, REDIS_URL="redis://127.0.0.1:1/0")
    assert gone["redis"][0] == "error"
    assert "good" not in operator("doctor", **tokens)
