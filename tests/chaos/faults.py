"""Makes the faults of a plan happen, and notes what was done to whom."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Coroutine
from typing import Any

import redis

from tests.chaos.load import Load
from tests.chaos.plan import Fault
from tests.chaos.stage import Bot, Stage, Workers

#: A clock is stepped by up to this much, forwards or backwards.
_CLOCK_S = 90.0
_STUTTER_S = 0.15
#: Calls that take effect although their reply is lost.
_LOST = ("chat.postMessage", "chat.update", "chat.startStream", "chat.appendStream", "chat.stopStream")


class Faults:
    """Everything that goes wrong in a run.

    Args:
        stage: To whom.
        load: Asked what must survive a kill of the server.

    Attributes:
        log: What was done, with seconds since the begin.
        kills: How many processes were killed with SIGKILL.
    """

    def __init__(self, stage: Stage, load: Load) -> None:
        self._stage = stage
        self._load = load
        self._begun_s = time.monotonic()
        self._lasting: set[asyncio.Task[None]] = set()
        self._server = asyncio.Lock()  # one trouble of the server at a time, or a kill could not wait for its disk
        self.log: list[str] = []
        self.kills = 0

    def note(self, text: str) -> None:
        self.log.append(f"{time.monotonic() - self._begun_s:7.2f} s  {text}")

    async def strike(self, fault: Fault) -> None:
        """Do it; a trouble that lasts goes on in the background."""
        kind, _, target = fault.name.partition(" ")
        match kind:
            case "kill" if target == "server":
                await self._kill_server(fault)
            case "kill":
                self._kill(target, fault)
            case "freeze" if target == "server":
                self._last(self._freeze_server(fault))
            case "freeze":
                self._last(self._freeze(target, fault))
            case _:
                self._trouble(fault)

    async def heal(self) -> None:
        """Wait for lasting troubles to pass, and end those that would not."""
        await asyncio.gather(*self._lasting)
        self._stage.proxy.order("well")
        self._stage.workspace.faults.clear()
        self._stage.guild.rules.faults.clear()
        self._stage.out_of_memory_file.unlink(missing_ok=True)

    def _last(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._lasting.add(task)
        task.add_done_callback(self._lasting.discard)

    # Processes

    def _candidates(self, target: str) -> list[Workers | Bot]:
        if target == "slack bot":
            return [*self._stage.slack_bots]
        return [*(self._stage.guild_bots if target == "guild bot" else self._stage.workers)]

    def _victim(self, target: str, fault: Fault) -> tuple[Workers | Bot, int] | None:
        """Who is meant and the process to signal; None if all of them are dead at this moment."""
        pids = []
        for seat in self._candidates(target):
            pid = seat.pid
            if isinstance(seat, Workers) and target != "supervisor":
                pid = seat.engine if target == "engine" else seat.worker
            if pid is not None:
                pids.append((seat, pid))
        return pids[int(fault.pick * len(pids))] if pids else None

    def _kill(self, target: str, fault: Fault) -> None:
        found = self._victim(target, fault)
        if found is None:
            self.note(f"kill {target}: none runs")
            return
        seat, pid = found
        if target == "worker" and isinstance(seat, Workers):
            if seat.weary and seat.pid is not None:
                target, pid = "supervisor (it waits too long with its workers)", seat.pid
            seat.worker_deaths += 1
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
            self.kills += 1
            self.note(f"kill {target} of {seat.name}, process {pid}")

    async def _freeze(self, target: str, fault: Fault) -> None:
        found = self._victim(target, fault)
        if found is None:
            return
        seat, pid = found
        lasts_s = fault.lasts_s * 2
        self.note(f"freeze {target} of {seat.name}, process {pid}, for {lasts_s:.1f} s")
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            await asyncio.sleep(lasts_s)
            os.kill(pid, signal.SIGCONT)

    # The server

    async def _kill_server(self, fault: Fault) -> None:
        async with self._server:
            stage = self._stage
            # With everysec the last second before a kill may be lost. What counts as accepted is what was seen in the
            # queue before, and what was seen is on disk now.
            async with self._load.looking:
                await asyncio.to_thread(self._load.look_at_queue)
                await asyncio.to_thread(stage.server.sync)
                stage.server_wanted = False
                stage.server.kill9()
            self.kills += 1
            self.note(f"kill server, away for {fault.lasts_s:.1f} s")
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(stage.server.start)
            stage.server_wanted = True

    async def _freeze_server(self, fault: Fault) -> None:
        async with self._server:
            self.note(f"freeze server for {fault.lasts_s:.1f} s")
            self._signal_server(signal.SIGSTOP)
            await asyncio.sleep(fault.lasts_s)
            self._signal_server(signal.SIGCONT)

    async def _slow_disk(self, fault: Fault) -> None:
        """The server's thread stands still again and again, as when a write waits for the disk."""
        async with self._server:
            self.note(f"slow disk for {fault.lasts_s:.1f} s")
            until_s = time.monotonic() + fault.lasts_s
            while time.monotonic() < until_s:
                self._signal_server(signal.SIGSTOP)
                await asyncio.sleep(_STUTTER_S)
                self._signal_server(signal.SIGCONT)
                await asyncio.sleep(_STUTTER_S / 2)

    def _signal_server(self, number: signal.Signals) -> None:
        process = self._stage.server.process
        assert process is not None
        process.send_signal(number)

    async def _refuse_writes(self, fault: Fault, name: str) -> None:
        async with self._server:
            self.note(f"{name} for {fault.lasts_s:.1f} s")
            await asyncio.to_thread(self._configure, "fill", name)
            await asyncio.sleep(fault.lasts_s)
            await asyncio.to_thread(self._configure, "empty", name)

    def _configure(self, what: str, name: str) -> None:
        blocked = self._stage.server.directory / "dump.rdb"
        with redis.Redis(unix_socket_path=str(self._stage.server.socket)) as client:
            if name == "full server":
                client.config_set("maxmemory", "1mb" if what == "fill" else "0")
            elif what == "empty":
                client.config_set("stop-writes-on-bgsave-error", "no")
            else:
                client.config_set("stop-writes-on-bgsave-error", "yes")
                blocked.mkdir(exist_ok=True)  # no file can take its place
                with contextlib.suppress(redis.ResponseError):  # one is on its way
                    client.bgsave()

    # Network, platforms, memory, clock

    async def _network(self, fault: Fault, order: str) -> None:
        self.note(f"network: {order} for {fault.lasts_s:.1f} s")
        self._stage.proxy.order(order)
        await asyncio.sleep(fault.lasts_s)
        self._stage.proxy.order("well")

    def _trouble(self, fault: Fault) -> None:
        lasting = {
            "slow network": lambda: self._network(fault, f"slow {0.01 + 0.1 * fault.amount:.3f}"),
            "mute network": lambda: self._network(fault, "mute"),
            "slow disk": lambda: self._slow_disk(fault),
            "full server": lambda: self._refuse_writes(fault, fault.name),
            "full disk": lambda: self._refuse_writes(fault, fault.name),
            "storm of limits": lambda: self._limits(fault),
            "drop sockets": self._drop_sockets,
        }
        if fault.name in lasting:
            self._last(lasting[fault.name]())
            return
        stage, slack = self._stage, self._stage.workspace.faults
        match fault.name:
            case "drop connections":
                self.note("network: drop all connections")
                stage.proxy.order("drop")
            case "out of memory":
                self.note("the next engine that takes a step is out of memory")
                stage.out_of_memory_file.touch()
            case "storm of errors":
                self.note("platforms: storm of errors")
                slack.broken["*"] = slack.broken.get("*", 0) + 2
                stage.guild.rules.faults += [500, 502, 503, 504] * 2
            case "lost replies":
                self.note("platforms: lost replies")
                slack.lost |= dict.fromkeys(_LOST, 2)
            case "step clock":
                offset_s = _CLOCK_S * (2 * fault.amount - 1)
                self.note(f"clock: {offset_s:+.1f} s from true" if stage.clock.environment else "clock: not movable")
                stage.clock.step(offset_s)
            case _:
                raise ValueError(fault.name)

    async def _limits(self, fault: Fault) -> None:
        self.note(f"platforms: storm of limits for {fault.lasts_s:.1f} s")
        slack, rules = self._stage.workspace.faults, self._stage.guild.rules
        slack.limited["*"] = slack.limited.get("*", 0) + 2
        usual, rules.per_window = rules.per_window, 1
        await asyncio.sleep(fault.lasts_s)
        rules.per_window = max(usual, 50)

    async def _drop_sockets(self) -> None:
        self.note("platforms: drop all sockets")
        await self._stage.workspace.socket.drop()
        await self._stage.guild.gateway.drop()
