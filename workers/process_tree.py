"""A tree of processes that dies as a whole: no child outlives its parent, however the parent ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

_PR_SET_PDEATHSIG = 1  # prctl(2)
_CHECK_S = 1.0


def die_with_parent(parent_pid: int) -> None:
    """Arrange that this process is killed when its parent ends, even by SIGKILL.

    On Linux the kernel does it (``prctl(PR_SET_PDEATHSIG)``); elsewhere a thread looks once a second.

    Args:
        parent_pid: The expected parent: if it is gone already, this process exits at once.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent_pid,), daemon=True, name="parent-watch").start()
    if os.getppid() != parent_pid:  # it died before the kernel was told
        os._exit(1)


def _watch_parent(parent_pid: int) -> None:
    while os.getppid() == parent_pid:
        time.sleep(_CHECK_S)
    os._exit(1)
