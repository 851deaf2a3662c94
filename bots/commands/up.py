"""``palaver up``: server, workers and front-ends as one process tree."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click

from bots import log, settings, up_wants
from bots.settings import Settings
from bots.up_lock import Users, only_one, set_keep
from workers import embedded_redis, redis_connection
from workers.contract import Kind

_POLL_S = 0.2
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
#: A program that ran for so long was well; its next restart is not held against it.
_WELL_AFTER_S = 60.0
#: Beyond what a worker takes to drain.
_STOP_MARGIN_S = 10.0
#: Exit codes after which starting again may help although nobody has changed anything (sysexits.h).
_TEMPORARY = frozenset({69, 75})

_log = logging.getLogger("palaver.up")


@click.command("up")
@click.option("--while-used", is_flag=True, hidden=True, help="End when no other command needs it.")
def command(while_used: bool) -> int:
    """Run server, workers and the configured front-ends until stopped.

    They start, restart and end together: no part outlives this command.
    """
    configured = settings.load()
    log.configure(configured.log_level, configured.log_format)
    with contextlib.ExitStack() as stack:
        stack.enter_context(only_one(configured.data_dir))
        if configured.redis.url is None:
            stack.enter_context(embedded_redis.ensure(configured.data_dir, configured.redis))
        with redis_connection.connect(configured.redis, configured.data_dir) as client:
            redis_connection.check(client)
        if not while_used:
            set_keep(configured.data_dir, keep=True)
        unused = Users(configured.data_dir).gone
        programs = [_worker(configured, kind, while_used) for kind in up_wants.KINDS]
        if not while_used:
            programs += _front_ends(configured)
        tree = Tree(programs, unused, stop_deadline_s=configured.worker.drain_s + _STOP_MARGIN_S)
        try:
            return tree.run()
        finally:
            for kind in up_wants.KINDS:
                up_wants.forget(configured.data_dir, kind)


def _worker(settings: Settings, kind: Kind, while_used: bool) -> Program:
    """The worker of a kind: always there, as far as it is installed; in a tree for its users' sake, if one wants it.

    Chat goes on where pictures cannot be drawn.
    """
    demand = _Demand(
        settings.data_dir,
        kind,
        always=not while_used and not up_wants.missing(settings, kind),
        useful=lambda: kind != "answer" or up_wants.has_knowledge(settings),
    )
    failure_file = up_wants.failure_file(settings.data_dir, kind)
    return Program(
        f"{kind} worker",
        ("worker", "--kinds", kind, "--devices", "auto", "--failure-file", str(failure_file)),
        wanted=demand,
        essential=kind == "chat" and not while_used,
        given_up=demand.give_up,
    )


def _front_ends(configured: settings.Settings) -> list[Program]:
    """The front-ends whose tokens are configured. One that is refused says why and leaves the rest running."""
    slack = configured.slack
    programs = []
    if configured.discord.token is not None:
        programs.append(_front_end("Discord front-end", "discord"))
    if slack.bot_tokens and (slack.socket_token or slack.secret):
        programs.append(_front_end("Slack front-end", "slack", *([] if slack.socket_token else ["--http"])))
    return programs


def _front_end(name: str, *arguments: str) -> Program:
    refused: list[bool] = []
    return Program(
        name,
        arguments,
        wanted=lambda: not refused,
        essential=False,
        given_up=lambda: refused.append(True),
    )


@dataclass(slots=True)
class _Demand:
    """Whether a kind of worker is to run.

    Args:
        data_dir: Where its users say so.
        kind: Which.
        always: Whether it is to run without anybody's wanting it.
        useful: Whether it has anything to work with then.
    """

    data_dir: Path
    kind: Kind
    always: bool
    useful: Callable[[], bool]

    def __call__(self) -> bool:
        return (self.always and self.useful()) or up_wants.wanted(self.data_dir, self.kind)

    def give_up(self) -> None:
        """It cannot run; whoever wants it again has it tried again."""
        self.always = False
        up_wants.forget(self.data_dir, self.kind)


@dataclass(slots=True)
class Program:
    """One child of the tree.

    Attributes:
        name: For logs.
        arguments: Of the ``palaver`` command.
        pause_s: How long to wait before the next restart.
        wanted: Asked before it is started.
        essential: Whether the tree is of no use without it; a tree also ends when nothing is left that can run.
        given_up: Called when it cannot run until somebody changes something.
    """

    name: str
    arguments: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None
    started_s: float = 0.0
    restart_at_s: float = 0.0
    pause_s: float = _FIRST_PAUSE_S
    wanted: Callable[[], bool] = lambda: True
    essential: bool = True
    given_up: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Start it, bound to this process."""
        arguments = [sys.executable, "-m", "bots.cli", *self.arguments, "--parent", str(os.getpid())]
        # A session of its own: Ctrl-C reaches this process alone, which then ends its children in order.
        self.process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True)
        self.started_s = time.monotonic()


class Tree:
    """Keeps programs running until told to stop.

    Args:
        programs: What to run.
        unused: Asked time and again; a tree that is of no use ends.
        stop_deadline_s: How long they may take to end.
    """

    def __init__(self, programs: list[Program], unused: Callable[[], bool], stop_deadline_s: float) -> None:
        self._programs = programs
        self._unused = unused
        self._stop_deadline_s = stop_deadline_s
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or Ctrl-C.

        Returns:
            An exit code: 0, or that of a program which cannot run until somebody changes something.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        try:
            while not (self._stopping or self._unused()):
                for program in self._programs:
                    code = self._look_after(program)
                    if code:
                        return code
                time.sleep(_POLL_S)
        finally:
            self._end()
        return 0

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _look_after(self, program: Program) -> int:
        """Start a program, again if it has ended; returns an exit code if the tree is of no use any more."""
        now_s = time.monotonic()
        if program.process is None:
            if now_s >= program.restart_at_s and program.wanted():
                program.start()
            return 0
        code = program.process.poll()
        if code is None:
            return 0
        if code > 0 and code not in _TEMPORARY:
            program.process = None
            program.given_up()
            _log.error("the %s cannot run (exit code %d)", program.name, code)
            others = any(other.process for other in self._programs)
            return 0 if others and not program.essential else code
        if now_s - program.started_s > _WELL_AFTER_S:
            program.pause_s = _FIRST_PAUSE_S
        _log.warning("the %s ended with %d and starts again in %.0f s", program.name, code, program.pause_s)
        program.process, program.restart_at_s = None, now_s + program.pause_s
        program.pause_s = min(2 * program.pause_s, _LONGEST_PAUSE_S)
        return 0

    def _end(self) -> None:
        running = [program.process for program in self._programs if program.process and program.process.poll() is None]
        for process in running:
            process.terminate()
        deadline_s = time.monotonic() + self._stop_deadline_s
        for process in running:
            try:
                process.wait(max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
