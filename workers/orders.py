"""What others want of a worker: gathered by signal handlers and threads, obeyed by its loop."""

from __future__ import annotations

import contextlib
import socket
from collections import deque


class Orders:
    """A mailbox with a bell that wakes the loop.

    Attributes:
        stops: Ids of jobs and executions to stop.
        kill_engine: Whether the engine process is to be killed and started again.
        shutdowns: 0; 1 to finish what runs; 2 to give everything back now.
    """

    def __init__(self) -> None:
        self.stops: deque[str] = deque()
        self.kill_engine = False
        self.shutdowns = 0
        self._bell, self._rope = socket.socketpair()
        self._bell.setblocking(False)
        self._rope.setblocking(False)

    def fileno(self) -> int:
        """The file descriptor to wait on."""
        return self._bell.fileno()

    @property
    def rope(self) -> socket.socket:
        """What ``signal.set_wakeup_fd`` pulls."""
        return self._rope

    def ring(self) -> None:
        """Wake the loop; safe in signal handlers and threads."""
        with contextlib.suppress(OSError):  # a full socket rings already; a closed one has nobody left to wake
            self._rope.send(b"!")

    def stop(self, job_or_execution_id: str) -> None:
        """Have one job stopped."""
        self.stops.append(job_or_execution_id)
        self.ring()

    def shut_down(self) -> None:
        """First call: finish what runs. Second: give it back."""
        self.shutdowns = min(self.shutdowns + 1, 2)
        self.ring()

    def hush(self) -> None:
        """Silence the bell, before the orders are read."""
        with contextlib.suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass

    def close(self) -> None:
        """Take the bell down."""
        self._bell.close()
        self._rope.close()
