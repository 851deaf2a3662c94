"""A data directory of its own for each test of the command line, and a terminal as a person sees it."""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from generation.data_dir import default_data_dir
from tests import embedded_model

PALAVER = [sys.executable, "-m", "bots.cli"]
DEADLINE_S = 120.0
_PROGRESS = re.compile(r"palaver: (starting|loading|waiting|ready|drawing|finishing|next in|\d+ before)")


@dataclass
class Home:
    """A data directory of its own, with the model that all tests share."""

    directory: Path
    extra: dict[str, str] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(("PALAVER_", "REDIS"))}
        settings = {
            "PALAVER_DATA_DIR": str(self.directory),
            "PALAVER_WORKER__LEASE_S": "3",
            "PALAVER_WORKER__HEARTBEAT_S": "1",
        }
        return own | settings | self.extra

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*PALAVER, *arguments], env=self.environment, **(pipes | options))  # type: ignore[call-overload]

    def run(self, *arguments: str, piped: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*PALAVER, *arguments],
            input=piped,
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env=self.environment,
            check=False,
        )

    def status(self) -> dict:
        done = self.run("status", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def processes(self) -> list[str]:
        """Command lines of every process that belongs to this data directory."""
        mark = f"PALAVER_DATA_DIR={self.directory}\0".encode()
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (
                    mark in (process / "environ").read_bytes() + b"\0"
                    or str(self.directory).encode() in (process / "cmdline").read_bytes()
                ):
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
        return found


@functools.cache
def image_model() -> Path:
    """A tiny image model with random weights: what it draws means nothing, how it gets there is the product's way."""
    from tests.image_models import save_embedded

    directory = Path(tempfile.mkdtemp(prefix="plvi"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return save_embedded(directory)


@contextlib.contextmanager
def new_home(**extra: str) -> Iterator[Home]:
    embedded_model.directory()
    directory = Path(tempfile.mkdtemp(prefix="plv"))
    (directory / "models").symlink_to(embedded_model.DATA_DIR / "models")
    downloads = default_data_dir() / "learning" / "downloads"  # the text encoders, fetched once
    downloads.mkdir(parents=True, exist_ok=True)
    (directory / "learning").mkdir()
    (directory / "learning" / "downloads").symlink_to(downloads)
    home = Home(directory, {"PALAVER_IMAGE__MODEL": str(image_model())} | extra)
    try:
        yield home
    finally:
        home.run("down")
        shutil.rmtree(directory, ignore_errors=True)


def ready(home: Home, *kinds: str) -> bool:
    """Whether workers of these kinds take jobs."""
    done = home.run("status", "--json")
    if done.returncode:
        return False
    running = {worker["kind"] for worker in json.loads(done.stdout)["workers"] if worker["ready"]}
    return set(kinds or ["chat"]) <= running


def wait_for(condition, process: subprocess.Popen[str] | None = None, log: Path | None = None) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        text = log.read_text()[-2_000:] if log else ""
        assert process is None or process.poll() is None, f"it has ended: {text}"
        assert time.monotonic() < deadline_s, f"it took too long: {text}"
        time.sleep(0.2)


def lines_of(done: subprocess.CompletedProcess[str]) -> list[dict]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def assert_one_line(done: subprocess.CompletedProcess[str], code: int, *words: str) -> None:
    assert done.returncode == code, done.stderr
    told = [line for line in done.stderr.splitlines() if not _PROGRESS.match(line)]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("palaver: ")
    assert all(word in told[0] for word in words), told[0]
    assert done.stdout == ""


class Terminal:
    """A program on a pseudo-terminal of its own, as a person would see it."""

    def __init__(self, home: Home, *arguments: str) -> None:
        pid, self.descriptor = pty.fork()
        if pid == 0:
            environment = home.environment | {"TERM": "xterm", "COLUMNS": "100"}
            os.execve(sys.executable, [*PALAVER, *arguments], environment)  # noqa: S606 - our own program
        self.pid = pid
        self.seen = ""
        self.code: int | None = None

    def type(self, text: str) -> None:
        os.write(self.descriptor, text.encode())

    def until(self, pattern: str) -> str:
        """Wait for something to be shown; what was seen up to there counts no more."""
        deadline_s = time.monotonic() + DEADLINE_S
        while not (match := re.search(pattern, self.seen)):
            assert time.monotonic() < deadline_s, self.seen[-2_000:]
            if select.select([self.descriptor], [], [], 0.2)[0]:
                self.seen += os.read(self.descriptor, 65_536).decode(errors="replace")
        before, self.seen = self.seen[: match.end()], self.seen[match.end() :]
        return before

    def leave(self) -> int:
        """Press Ctrl-D; returns the exit code."""
        self.type("\x04")
        with contextlib.suppress(OSError):  # the other side has closed
            while os.read(self.descriptor, 65_536):
                pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code

    def end(self) -> None:
        if self.code is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.descriptor)


@contextlib.contextmanager
def at_terminal(home: Home, *arguments: str) -> Iterator[Terminal]:
    program = Terminal(home, *arguments)
    try:
        yield program
    finally:
        program.end()
