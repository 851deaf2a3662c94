"""What a pull tells while it runs."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class PullProgress:
    """One moment of a pull.

    Args:
        stage: What is being done, for the user.
        done_bytes: How far it is.
        total_bytes: Out of how many; 0 where that is not known.
    """

    stage: str
    done_bytes: int = 0
    total_bytes: int = 0


OnProgress = Callable[[PullProgress], None]


def ignore_progress(_: PullProgress) -> None:
    """Tell nobody."""


@contextlib.contextmanager
def watched(folder: Path, stage: str, total_bytes: int, on_progress: OnProgress) -> Iterator[None]:
    """Tell how a folder grows while something that tells nothing itself writes to it.

    Args:
        folder: What grows; it need not exist yet.
        stage: What is being done, for the user.
        total_bytes: How much there will be in the end.
        on_progress: Called from a thread of this function's own.
    """
    before = _size_bytes(folder)
    done = threading.Event()

    def tell() -> None:
        grown = min(_size_bytes(folder) - before, total_bytes)
        on_progress(PullProgress(stage, max(0, grown), total_bytes))

    def watch() -> None:
        while not done.wait(_EVERY_S):
            tell()

    on_progress(PullProgress(stage, 0, total_bytes))
    thread = threading.Thread(target=watch, name="palaver-pull-progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def _size_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # a temporary file may be gone by now
            if path.is_file() and not path.is_symlink():
                total += path.stat().st_size
    return total
