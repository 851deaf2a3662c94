from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bots.commands.up import Program, Tree
from tests.worker_processes import alive


class Script(Program):
    """A program that runs the test's own code instead of a command; ``name`` is where it notes its starts."""

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, "-c", self.arguments[0], self.name])
        self.started_s = time.monotonic()


#: Notes its process id, then works until told to stop.
WORK = "import os, sys, time; open(sys.argv[1], 'a').write(f'{os.getpid()} '); time.sleep(600)"
FAIL = "import os, sys; open(sys.argv[1], 'a').write(f'{os.getpid()} '); sys.exit(%d)"


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    kept = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


def starts(log: Path) -> list[int]:
    return [int(pid) for pid in log.read_text().split()] if log.exists() else []


def when(condition, act) -> threading.Thread:
    """Do something once a condition holds, while the tree runs in this thread."""

    def watch() -> None:
        deadline_s = time.monotonic() + 60
        while not condition() and time.monotonic() < deadline_s:
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_a_killed_program_starts_again_and_all_end_together(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    programs = [Script(str(one), (WORK,), pause_s=0.1), Script(str(two), (WORK,))]
    watchers = [
        when(lambda: starts(one), lambda: os.kill(starts(one)[0], signal.SIGKILL)),
        when(lambda: len(starts(one)) == 2, lambda: os.kill(os.getpid(), signal.SIGTERM)),
    ]
    assert Tree(programs, lambda: False, stop_deadline_s=20).run() == 0
    for watcher in watchers:
        watcher.join()
    assert (len(starts(one)), len(starts(two))) == (2, 1)
    assert not any(alive(pid) for pid in starts(one) + starts(two))


def test_a_program_that_cannot_run_ends_the_tree_with_its_code(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    programs = [Script(str(one), (WORK,)), Script(str(two), (FAIL % 78,))]
    assert Tree(programs, lambda: False, stop_deadline_s=20).run() == 78
    assert not any(alive(pid) for pid in starts(one) + starts(two))


def test_what_nobody_wants_is_not_started_until_somebody_does(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    programs = [Script(str(one), (WORK,)), Script(str(two), (WORK,), wanted=(tmp_path / "want").exists)]
    waiter = when(lambda: starts(one), (tmp_path / "want").touch)
    assert Tree(programs, lambda: bool(starts(two)), stop_deadline_s=20).run() == 0
    waiter.join()
    assert len(starts(two)) == 1


def test_a_tree_lives_on_without_what_only_some_want(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    given_up = (tmp_path / "given_up").touch
    failing = Script(str(two), (FAIL % 78,), essential=False, given_up=given_up, restart_at_s=0.0)
    failing.wanted = lambda: bool(starts(one)) and not (tmp_path / "given_up").exists()
    programs = [Script(str(one), (WORK,), essential=False), failing]
    assert Tree(programs, (tmp_path / "given_up").exists, stop_deadline_s=20).run() == 0
    assert len(starts(two)) == 1


def test_a_tree_in_which_nothing_is_left_ends(tmp_path):
    programs = [Script(str(tmp_path / "one"), (FAIL % 78,), essential=False)]
    assert Tree(programs, lambda: False, stop_deadline_s=20).run() == 78


def test_a_passing_fault_is_tried_again_at_growing_distances(tmp_path):
    log = tmp_path / "one"
    program = Script(str(log), (FAIL % 75,), pause_s=0.1)
    assert Tree([program], lambda: len(starts(log)) >= 3, stop_deadline_s=20).run() == 0
    assert len(starts(log)) >= 3
    assert program.pause_s >= 0.2


def test_a_tree_of_no_use_ends(tmp_path):
    log = tmp_path / "one"
    assert Tree([Script(str(log), (WORK,))], lambda: bool(starts(log)), stop_deadline_s=20).run() == 0
    assert not alive(starts(log)[0])


def test_a_program_that_will_not_end_is_killed(tmp_path):
    log = tmp_path / "one"
    deaf = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + WORK
    assert Tree([Script(str(log), (deaf,))], lambda: bool(starts(log)), stop_deadline_s=0.3).run() == 0
    assert not alive(starts(log)[0])
