"""Real worker processes and supervisors for tests, with leases short enough to wait for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from tests.jobs import wait_until
from tests.valkey import die_with_parent
from workers import keys
from workers.settings import LimitSettings, RedisSettings, WorkerSettings
from workers.worker_process import WorkerConfig

LEASE_S = 2.0


def config(url: str, name: str = "w1", worker: dict[str, Any] | None = None, **options: Any) -> WorkerConfig:
    settings = {"lease_s": LEASE_S, "heartbeat_s": 0.3, "flush_ms": 20, "drain_s": 10, **(worker or {})}
    return WorkerConfig.model_validate(
        {
            "kind": "chat",
            "name": f"{name}-{uuid.uuid4().hex[:6]}",
            "redis": RedisSettings.model_validate({"url": url}),
            "data_dir": Path("/nonexistent"),
            "limits": LimitSettings(tenant_in_flight=1000, user_in_flight=1000),
            "worker": WorkerSettings.model_validate(settings),
            "factory": "tests.engines:build",
            "options": options,
            "log_level": "INFO",
        }
    )


class Process:
    """A started process that is certainly gone when its test ends."""

    def __init__(self, arguments: list[str], standard_input: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=die_with_parent,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(standard_input)
        self._process.stdin.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill9(self) -> None:
        self.signal(signal.SIGKILL)
        self.wait()

    def wait(self, timeout_s: float = 20.0) -> int:
        return self._process.wait(timeout_s)

    def output(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.read()

    def end(self) -> None:
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGCONT)
            self._process.kill()
        self._process.wait(20)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def worker(configured: WorkerConfig) -> Iterator[Process]:
    process = Process(["-m", "workers.worker_process", str(os.getpid())], configured.to_json())
    try:
        yield process
    finally:
        process.end()


_SUPERVISE = """
import json, sys
from workers.process_tree import die_with_parent
from workers.supervisor import Supervisor
from workers.worker_process import WorkerConfig
import logging
logging.basicConfig(level="INFO", format="%(asctime)s %(name)s %(message)s")
from workers.errors import WorkersError
try:
    Supervisor([WorkerConfig.model_validate(each) for each in json.load(sys.stdin)], maintenance_s=0.5).run()
except WorkersError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@contextmanager
def supervisor(*configured: WorkerConfig) -> Iterator[Process]:
    process = Process(["-c", _SUPERVISE], "[" + ",".join(each.to_json() for each in configured) + "]")
    try:
        yield process
    finally:
        process.end()


def wait_ready(client: redis.Redis, count: int = 1, timeout_s: float = 30.0) -> None:
    """Wait until this many workers have a ready engine."""

    def ready() -> bool:
        entries = client.hvals(keys.workers())
        return sum(b'"engine": {' in entry for entry in entries) >= count

    wait_until(ready, timeout_s, "for workers to be ready")


def children(pid: int) -> list[int]:
    """Process ids of the direct children."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in found.split()]


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
