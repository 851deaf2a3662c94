"""The small process that owns the embedded server: it restarts it, and ends it when its last user has gone.

Run as ``python -I -S valkey_keeper.py DIRECTORY BINARY`` by ``workers.embedded_redis``, whose docstring explains the
files in the directory. Only the standard library is imported, so that it costs a few megabytes and no time.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

SERVER_FAILED = 1
OTHER_KEEPER_RUNS = 2

_PR_SET_PDEATHSIG = 1
_SHUTDOWN_DEADLINE_S = 30.0
_LOCK_DEADLINE_S = 2.0
_RESTARTS = 5
_LOG_LIMIT_BYTES = 4_000_000
_LIBC = ctypes.CDLL(None)


class Keeper:
    """Runs ``valkey-server`` for as long as anybody holds a shared lock on ``users.lock``.

    Args:
        directory: The server's directory, with ``valkey.conf`` and ``address`` in it.
        binary: The server's program.
    """

    def __init__(self, directory: Path, binary: str) -> None:
        self._directory = directory
        self._binary = binary
        self._server: subprocess.Popen[bytes] | None = None
        self._leaving = threading.Event()

    def run(self) -> int:
        """Keep the server until nobody uses it.

        Returns:
            Exit status: 0 after an orderly end, ``SERVER_FAILED`` or ``OTHER_KEEPER_RUNS``.
        """
        own = os.open(self._directory / "keeper.lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _lock_in_time(own):
            return OTHER_KEEPER_RUNS
        os.ftruncate(own, 0)
        os.write(own, str(os.getpid()).encode())
        # A signal to the whole process group, as service managers send it, must not take the server from under
        # workers that are still finishing: the keeper leaves when they have. For a kept server it means "no longer".
        signal.signal(signal.SIGTERM, lambda *_: (self._directory / "keep").unlink(missing_ok=True))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        threading.Thread(target=self._end_without_users, daemon=True).start()
        return self._supervise()

    def _supervise(self) -> int:
        ever_ready = False
        failures = 0
        while failures <= _RESTARTS:
            self._server = self._start()
            if self._leaving.is_set():  # the last user left in between
                self._server.terminate()
            ready = self._becomes_ready(self._server)
            self._server.wait()
            if self._leaving.is_set():
                return 0
            ever_ready = ever_ready or ready
            if not ever_ready:
                return SERVER_FAILED
            failures = 0 if ready else failures + 1
            time.sleep(0.1 * 2**failures if failures else 0)
        return SERVER_FAILED

    def _start(self) -> subprocess.Popen[bytes]:
        log_path = self._directory / "valkey.log"
        if log_path.exists() and log_path.stat().st_size > _LOG_LIMIT_BYTES:
            log_path.replace(log_path.with_suffix(".log.old"))
        # The server inherits this lock and thereby holds it to its last breath: two servers never write one file,
        # even when the keeper of the first was killed.
        lock = os.open(self._directory / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with log_path.open("ab") as log:
                return subprocess.Popen(
                    [self._binary, str(self._directory / "valkey.conf")],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self._directory,
                    pass_fds=(lock,),
                    preexec_fn=_end_with_keeper,  # noqa: PLW1509 - the other thread only waits in the kernel
                )
        finally:
            os.close(lock)

    def _becomes_ready(self, server: subprocess.Popen[bytes]) -> bool:
        """Whether the server answers before it ends, however long it takes to load its data."""
        address = (self._directory / "address").read_text()
        while server.poll() is None:
            with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(1.0)
                connection.connect(address)
                connection.sendall(b"PING\r\n")
                if connection.recv(5) == b"+PONG":
                    return True
            time.sleep(0.02)
        return False

    def _end_without_users(self) -> None:
        """Blocks until the kernel has released every user's lock, whichever way those processes ended."""
        users = os.open(self._directory / "users.lock", os.O_RDWR)
        while True:
            fcntl.flock(users, fcntl.LOCK_EX)
            if not (self._directory / "keep").exists():
                break
            fcntl.flock(users, fcntl.LOCK_UN)
            time.sleep(1.0)
        self._leaving.set()
        if self._server is not None:
            self._server.terminate()
        time.sleep(_SHUTDOWN_DEADLINE_S)
        if self._server is not None:
            self._server.kill()


def _lock_in_time(descriptor: int) -> bool:
    """Take an exclusive lock that others hold for a moment at most, unless a keeper runs."""
    deadline_s = time.monotonic() + _LOCK_DEADLINE_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() > deadline_s:
                return False
            time.sleep(0.02)
        else:
            return True


def _end_with_keeper() -> None:
    """The server ends orderly should the keeper be killed; where the system cannot do that, its next user ends it."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(Keeper(Path(sys.argv[1]), sys.argv[2]).run())
