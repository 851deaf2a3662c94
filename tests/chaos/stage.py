"""Everything that runs: server, proxy, supervisors with workers and engines, and bots of two platforms.

Whatever dies is started again after a moment, as an operator's service manager would.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

from tests import bot_process, embedded_model, worker_processes
from tests.chaos import models
from tests.chaos.proxy import ProxyProcess
from tests.fake_guild import bot as guild_bot
from tests.fake_guild.rules import Rules as GuildRules
from tests.fake_guild.server import FakeGuild
from tests.fake_guild.world import Message
from tests.fake_workspace.rules import Rules as WorkspaceRules
from tests.fake_workspace.server import FakeWorkspace
from tests.valkey import BINARY, ValkeyProcess, die_with_parent
from tests.worker_processes import alive, children
from workers.supervisor import FACTORIES

TEAMS = 6
_LEASE_S = 1.5
_RESTART_S = 0.3
_REAL_SILENCE_S = 30.0
#: What is killed so often has attempts to spare: no real installation loses a worker every few seconds.
ATTEMPTS = 25
#: Worker deaths that a supervisor sees before it is replaced, for it waits longer and longer before it starts the next.
_PATIENCE = 3


class Clock:
    """The time of day of every process on the stage, as far as there is a C compiler to make it movable."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "clock"
        self._file.write_bytes(struct.pack("d", 0.0))
        self.offset_s = 0.0
        self.environment: dict[str, str] = {}
        compiler = shutil.which("cc") or shutil.which("gcc")
        if compiler is None or sys.platform != "linux":
            return
        library = directory / "clock.so"
        source = Path(__file__).parent / "clock.c"
        made = subprocess.run(
            [compiler, "-O1", "-shared", "-fPIC", "-o", library, source, "-ldl"], capture_output=True, check=False
        )
        if made.returncode == 0:
            self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._file)}

    def step(self, offset_s: float) -> None:
        """Set the clock so far from the machine's."""
        self.offset_s = offset_s
        with self._file.open("r+b") as file:
            file.write(struct.pack("d", offset_s))


class Workers:
    """One supervisor with one worker and its engine."""

    def __init__(self, name: str, url: str, directory: Path, real: Literal["chat", "image"] | None = None) -> None:
        self.name = name
        self.real = real
        self.log = directory / f"{name}.log"
        configured = worker_processes.config(
            url, name, {"flush_ms": 50, "engine_silence_s": 4.0, "max_attempts": ATTEMPTS},
            step_s=0.004, capacity=16, out_of_memory_file=str(directory / "out-of-memory"),
        )  # fmt: skip
        own: dict[str, object] = {"factory": "tests.chaos.engine:build"}
        if real is not None:
            options = models.CHAT_OPTIONS if real == "chat" else models.IMAGE_OPTIONS
            own = {"kind": real, "factory": FACTORIES[real], "options": options}
            own["model"] = embedded_model.NAME if real == "chat" else None
            silence_s = _REAL_SILENCE_S  # a step of a model takes longer than one of words
            own["worker"] = configured.worker.model_copy(update={"engine_silence_s": silence_s})
        self._config = configured.model_copy(update=own)
        self._process: subprocess.Popen[bytes] | None = None
        self.worker_deaths = 0

    def launch(self) -> None:
        with self.log.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-c", worker_processes._SUPERVISE],
                stdin=subprocess.PIPE, stdout=log, stderr=log, preexec_fn=die_with_parent,
            )  # fmt: skip
        assert process.stdin is not None
        process.stdin.write(f"[{self._config.to_json()}]".encode())
        process.stdin.close()
        self._process, self.worker_deaths = process, 0

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.poll() is None else None

    @property
    def worker(self) -> int | None:
        return _only_child(self.pid)

    @property
    def engine(self) -> int | None:
        return _only_child(self.worker)

    @property
    def weary(self) -> bool:
        return self.worker_deaths >= _PATIENCE

    async def revive(self) -> None:
        self.launch()


class Bot:
    """One front-end process."""

    def __init__(self, name: str, process: guild_bot.BotProcess | bot_process.BotProcess) -> None:
        self.name = name
        self.process = process

    @property
    def pid(self) -> int | None:
        own = self.process._process
        return own.pid if own is not None and own.poll() is None else None

    @property
    def log(self) -> Path:
        return self.process.log

    async def revive(self) -> None:
        # One that cannot begin, because the server is away, is tried again like any that has died.
        with contextlib.suppress(AssertionError, TimeoutError):
            await self.process.start()


class MessagesByChannel(dict[int, Message]):
    """The stand-in's messages, which can be found without looking at all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.by_channel: dict[int, dict[int, Message]] = {}

    def __setitem__(self, key: int, message: Message) -> None:
        super().__setitem__(key, message)
        self.by_channel.setdefault(message.channel, {})[key] = message


class Stage:
    """Use as an async context manager.

    Args:
        workers: How many supervisors.
        bots: How many processes of each front-end.
        with_models: Whether two more supervisors run real models, one for chat and one for pictures.
        binary: Of the server.

    Attributes:
        marker: In the environment of every process of this run, so that none can hide.
    """

    def __init__(self, workers: int = 3, bots: int = 2, *, with_models: bool = False, binary: Path = BINARY) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="plc"))
        self.marker = secrets.token_hex(8)
        self.clock = Clock(self.directory)
        self._before: dict[str, str | None] = {}
        self._counts = (workers, bots)
        self._with_models = with_models
        self._stack = contextlib.AsyncExitStack()
        self._tending: dict[str, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None
        self.server = ValkeyProcess(persist=True, binary=binary)
        self.server_wanted = True
        self.guild = FakeGuild(GuildRules(per_window=50))
        self.guild.world.messages = MessagesByChannel()
        self.workspace = FakeWorkspace(WorkspaceRules(minute_s=4.0))
        self.workers: list[Workers] = []
        self.slack_bots: list[Bot] = []
        self.guild_bots: list[Bot] = []

    @property
    def out_of_memory_file(self) -> Path:
        return self.directory / "out-of-memory"

    @property
    def seats(self) -> list[Workers | Bot]:
        return [*self.workers, *self.slack_bots, *self.guild_bots]

    async def __aenter__(self) -> Stage:
        for name, value in {"CHAOS_RUN": self.marker, **self.clock.environment}.items():
            self._before[name] = os.environ.get(name)
            os.environ[name] = value
        self.server.start()
        self.proxy = ProxyProcess(str(self.server.socket))
        await self._stack.enter_async_context(self.guild)
        await self._stack.enter_async_context(self.workspace)
        for number in range(2, TEAMS + 1):
            self.workspace.add_team(f"T{number}")
        workers, bots = self._counts
        self.workers = [Workers(f"w{number}", self.proxy.url, self.directory) for number in range(workers)]
        if self._with_models:
            await asyncio.to_thread(embedded_model.directory)
            self.workers.append(Workers("model", self.proxy.url, self.directory, "chat"))
            self.workers.append(Workers("pictures", self.proxy.url, self.directory, "image"))
        made: list[Awaitable[None]] = []
        for number in range(bots):
            own = self._settings()
            slack = bot_process.BotProcess(self.workspace, self.proxy.url, PALAVER_SLACK__LEASE_S=str(_LEASE_S), **own)
            guild = guild_bot.BotProcess(self.guild, self.proxy.url, **own)
            self.slack_bots.append(Bot(f"slack{number}", slack))
            self.guild_bots.append(Bot(f"guild{number}", guild))
        made = [seat.revive() for seat in self.seats]
        await asyncio.gather(*made)
        self._keeper = asyncio.create_task(self._keep())
        return self

    def _settings(self) -> dict[str, str]:
        scopes = ("TENANT", "CHANNEL", "USER")
        generous = {f"PALAVER_LIMITS__CHAT__{scope}__BURST": "100000" for scope in scopes}
        generous |= {f"PALAVER_LIMITS__CHAT__{scope}__PER_MINUTE": "100000" for scope in scopes}
        return {
            **generous,
            "PALAVER_BUDGETS__TENANT_DAY_GPU_S": "1e8",
            "PALAVER_BUDGETS__USER_MONTH_GPU_S": "1e8",
            "PALAVER_WORKER__MAX_ATTEMPTS": str(ATTEMPTS),
        }

    async def _keep(self) -> None:
        """Start whatever is dead."""
        while True:
            await asyncio.sleep(_RESTART_S)
            for seat in self.seats:
                if seat.pid is None and seat.name not in self._tending:
                    task = asyncio.create_task(seat.revive())
                    self._tending[seat.name] = task
                    task.add_done_callback(lambda _, name=seat.name: self._tending.pop(name))
            if self.server_wanted and not (self.server.process and self.server.process.poll() is None):
                await asyncio.to_thread(self.server.start)

    async def stop(self, timeout_s: float = 60.0) -> dict[str, int | None]:
        """End all processes but the server in an orderly way; returns their exit codes, None for those that hang."""
        await self._stop_keeping()
        waited = {}
        for seat in self.seats:
            own = seat._process if isinstance(seat, Workers) else seat.process._process
            if own is not None and own.poll() is None:
                own.send_signal(signal.SIGTERM)
                waited[seat.name] = own
        await until(lambda: all(each.poll() is not None for each in waited.values()), timeout_s)
        return {name: each.poll() for name, each in waited.items()}

    async def _stop_keeping(self) -> None:
        tasks = [each for each in (self._keeper, *self._tending.values()) if each is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def __aexit__(self, *_: object) -> None:
        await self._stop_keeping()
        self.server_wanted = False
        for pid in marked(self.marker):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        await self._stack.aclose()
        self.proxy.end()
        self.server.remove()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        shutil.rmtree(self.directory, ignore_errors=True)


def _only_child(pid: int | None) -> int | None:
    try:
        found = [child for child in children(pid) if alive(child)] if pid else []
    except (FileNotFoundError, ProcessLookupError):
        return None
    return found[0] if found else None


def marked(marker: str) -> list[int]:
    """All processes of a run but this one."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                if f"CHAOS_RUN={marker}".encode() in (entry / "environ").read_bytes() and alive(int(entry.name)):
                    found.append(int(entry.name))
    return found


async def until(condition: Callable[[], object], timeout_s: float) -> None:
    """Return once something is true, or when the time is over."""
    deadline_s = time.monotonic() + timeout_s
    while not condition() and time.monotonic() < deadline_s:  # noqa: ASYNC110 - processes have no event to wait for
        await asyncio.sleep(0.1)
