"""Who runs and who uses the process tree of a data directory; the kernel keeps the books, so that no crash spoils them.

Files in the data directory:

    up.lock     held by the running ``palaver up``, with its pid inside
    users.lock  shared by every command that uses the tree; a tree that was started for them ends when nobody holds it
    up.keep     exists while such a tree is to stay all the same
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from workers.errors import RedisUnavailableError, WorkersError

_POLL_S = 0.05
_LOOK_S = 0.5
#: A tree that ends lets its worker finish what it writes.
_ENDING_LIMIT_S = 60.0


class AlreadyRunningError(WorkersError):
    """Another ``palaver up`` runs for this data directory."""

    code = "already_running"
    exit_code = 75


@contextlib.contextmanager
def only_one(data_dir: Path) -> Iterator[None]:
    """Be the one ``palaver up`` of a data directory.

    Raises:
        AlreadyRunningError: There is one.
    """
    lock = _open(data_dir / "up.lock")
    try:
        # Whoever asks for the pid holds the lock for a moment; only a tree holds it for longer.
        if not _within(_LOOK_S, lock, fcntl.LOCK_EX):
            raise AlreadyRunningError(
                f"palaver up already runs for {data_dir} (process {running_pid(data_dir)}). "
                "Stop it with `palaver down`."
            )
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        yield
    finally:
        os.close(lock)


def running_pid(data_dir: Path) -> int | None:
    """Process id of the ``palaver up`` that runs for a data directory, None if none does."""
    try:
        lock = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        if _try(lock, fcntl.LOCK_SH):
            return None
        text = os.read(lock, 20).decode()
        return int(text) if text.isdigit() else None
    finally:
        os.close(lock)


@contextlib.contextmanager
def in_use(data_dir: Path) -> Iterator[None]:
    """While this lasts, the tree does not end for lack of users.

    Raises:
        AlreadyRunningError: The tree is ending and does not come to an end.
    """
    lock = _open(data_dir / "users.lock")
    try:
        if not _within(_ENDING_LIMIT_S, lock, fcntl.LOCK_SH):
            raise AlreadyRunningError(f"The process {running_pid(data_dir)} is ending, but does not end. Kill it.")
        yield
    finally:
        os.close(lock)


class Users:
    """What a tree asks that was started for its users' sake."""

    def __init__(self, data_dir: Path) -> None:
        self._keep = data_dir / "up.keep"
        self._lock = _open(data_dir / "users.lock")

    def gone(self) -> bool:
        """Whether nobody uses the tree any more; once it is so, nobody can begin to until this process has ended."""
        if not _try(self._lock, fcntl.LOCK_EX):
            return False
        if not self._keep.exists():
            return True
        fcntl.flock(self._lock, fcntl.LOCK_UN)
        return False


def set_keep(data_dir: Path, keep: bool) -> None:
    """Say whether a tree stays when nobody uses it."""
    if keep:
        (data_dir / "up.keep").touch(mode=0o600)
    else:
        (data_dir / "up.keep").unlink(missing_ok=True)


def wait_until_ended(data_dir: Path, deadline_s: float) -> bool:
    """Wait for the tree to end, unless it stays or somebody uses it.

    Args:
        data_dir: Whose tree.
        deadline_s: Longest wait, in seconds.

    Returns:
        Whether it has ended.
    """
    until_s = time.monotonic() + deadline_s
    while running_pid(data_dir) is not None:
        if (data_dir / "up.keep").exists() or time.monotonic() > until_s or _others_use(data_dir):
            return False
        time.sleep(_POLL_S)
    return True


def _others_use(data_dir: Path) -> bool:
    """Whether a user, and not the ending tree itself, holds the lock."""
    lock = _open(data_dir / "users.lock")
    try:
        return _try(lock, fcntl.LOCK_SH) and not _try(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def _open(path: Path) -> int:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise RedisUnavailableError(
            f"The data directory {path.parent} cannot be written: {error.strerror}. "
            "Correct its rights or set PALAVER_DATA_DIR to another one."
        ) from None


def _within(limit_s: float, lock: int, mode: int) -> bool:
    """Take a lock within some seconds; not by a blocking call, so that Ctrl-C and the limit work."""
    deadline_s = time.monotonic() + limit_s
    while not _try(lock, mode):
        if time.monotonic() > deadline_s:
            return False
        time.sleep(_POLL_S)
    return True


def _try(lock: int, mode: int) -> bool:
    try:
        fcntl.flock(lock, mode | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
