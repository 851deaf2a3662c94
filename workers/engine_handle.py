"""The worker's side of an engine process: start it, feed it, notice its end, start it again."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

from generation.types import EngineInfo
from workers.engine_channel import Channel, Message
from workers.engine_process import EngineSpec
from workers.errors import EngineStartError

log = logging.getLogger("palaver.engine")

_FIRST_BACKOFF_S = 0.2
_LONGEST_BACKOFF_S = 30.0
#: An engine that ran this long was healthy: the next restart is at once again.
_HEALTHY_S = 60.0


class EngineHandle:
    """One engine process and its successors.

    Args:
        spec: What to build in it.
        start_timeout_s: Longest time without any sign of life while it loads; downloads report progress.
        silence_s: An engine that has work and answers no ping for this long is killed.

    Attributes:
        info: What runs, once it is ready.
        progress: What it is loading, for people who wait.
    """

    def __init__(self, spec: EngineSpec, start_timeout_s: float = 600.0, silence_s: float = 120.0) -> None:
        self.spec = spec
        self.info: EngineInfo | None = None
        self.progress = "starting"
        self.restarts = 0
        self._start_timeout_s = start_timeout_s
        self._silence_s = silence_s
        self._process: subprocess.Popen[bytes] | None = None
        self._channel: Channel | None = None
        self._backoff_s = _FIRST_BACKOFF_S
        self._start_at = 0.0
        self._heard_at = 0.0
        self._ready_at = 0.0
        self._ping_at: float | None = None

    @property
    def ready(self) -> bool:
        """Whether it takes requests."""
        return self.info is not None

    @property
    def running(self) -> bool:
        """Whether there is a process, loading or ready."""
        return self._process is not None

    @property
    def pid(self) -> int:
        """Its process id, 0 if there is none."""
        return self._process.pid if self._process else 0

    @property
    def channel(self) -> Channel | None:
        """What to wait on for its messages."""
        return self._channel

    @property
    def start_in_s(self) -> float:
        """Seconds until the back-off allows the next start."""
        return max(0.0, self._start_at - time.monotonic())

    def start(self) -> None:
        """Start the process; readiness arrives as a message."""
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "workers.engine_process", str(theirs.fileno()), str(os.getpid())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
            )
        self._channel = Channel(ours)
        self._heard_at = time.monotonic()
        self._ping_at = None
        level = logging.getLevelName(log.getEffectiveLevel())
        # The options may hold secrets: they travel through the channel, not on a command line that `ps` shows.
        self._channel.send(["build", self.spec.factory, self.spec.options, level, self.spec.log_format])

    def submit(self, requests: Sequence[tuple[str, dict[str, Any], float | None]]) -> None:
        """Hand over requests: id, body as in the contract, deadline in seconds."""
        self._send(*(["submit", request_id, body, deadline_s] for request_id, body, deadline_s in requests))

    def cancel(self, request_ids: Sequence[str]) -> None:
        """Have requests forgotten."""
        self._send(*(["cancel", request_id] for request_id in request_ids))

    def ping(self) -> None:
        """Ask for a sign of life, unless one is outstanding."""
        if self.ready and self._ping_at is None:
            self._ping_at = time.monotonic()
            self._send(["ping", 0])

    def receive(self) -> list[Message]:
        """What the engine said about requests; its own state is kept here.

        Raises:
            EngineStartError: It could not be built; the message is the engine's own.
        """
        if self._channel is None:
            return []
        events: list[Message] = []
        for message in self._channel.receive():
            self._heard_at = time.monotonic()
            match message:
                case [
                    "delta" | "image_progress" | "picture" | "grounds" | "finished" | "failed" | "raised" | "judged",
                    *_,
                ]:
                    events.append(message)
                case ["pong", _]:
                    self._ping_at = None
                case ["progress", what, share]:
                    self.progress = what if share is None else f"{what} {share:.0%}"
                case ["ready", info]:
                    self.info = EngineInfo(**info)
                    self._ready_at = time.monotonic()
                    self.progress = "ready"
                case ["unusable", code, text, permanent]:
                    self.kill()
                    raise EngineStartError(text, code=code, permanent=permanent)
        return events

    def died(self) -> bool:
        """Whether the process has ended, or was just killed because it hangs; read what it said last before asking."""
        if self._channel is None:
            return False
        if self._channel.closed:
            return True
        now = time.monotonic()
        if not self.ready and now - self._heard_at > self._start_timeout_s:
            self.kill()
            raise EngineStartError(f"The engine gave no sign of life for {self._start_timeout_s:.0f} s while starting.")
        if (
            self._ping_at is not None
            and now - self._ping_at > self._silence_s
            and now - self._heard_at > self._silence_s
        ):
            log.error("The engine did not answer for %.0f s and is killed.", self._silence_s)
            return True
        return False

    def flush(self) -> None:
        """Write what the engine had not taken yet."""
        if self._channel is not None:
            self._channel.flush()

    def kill_process(self) -> None:
        """Kill it and leave its end to be noticed like any other death."""
        if self._process is not None:
            self._process.kill()

    def bury(self) -> int | None:
        """Clear a dead engine away and set the back-off for the next; returns its exit status."""
        was_healthy = self.ready and time.monotonic() - self._ready_at > _HEALTHY_S
        self._backoff_s = _FIRST_BACKOFF_S if was_healthy else self._backoff_s
        status = self.kill()
        self._start_at = time.monotonic() + self._backoff_s
        self._backoff_s = min(self._backoff_s * 2, _LONGEST_BACKOFF_S)
        self.restarts += 1
        return status

    def kill(self) -> int | None:
        """End the process at once; returns its exit status."""
        status = None
        if self._process is not None:
            self._process.kill()
            status = self._process.wait()
        if self._channel is not None:
            self._channel.close()
        self._process = self._channel = self.info = None
        return status

    def stop(self, patience_s: float = 5.0) -> None:
        """End the process orderly, or by force if it takes too long or is still loading."""
        if self._process is not None and self._channel is not None and self.ready:
            self._send(["stop"])
            try:
                self._process.wait(patience_s)
            except subprocess.TimeoutExpired:
                log.warning("The engine did not stop within %.0f s and is killed.", patience_s)
        self.kill()

    def _send(self, *messages: Message) -> None:
        if self._channel is not None and messages:
            self._channel.send(*messages)
