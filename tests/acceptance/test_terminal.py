"""The ``palaver`` command as people and scripts use it: real processes, a real server, the real embedded model."""

from __future__ import annotations

import contextlib
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

import pytest

from tests import embedded_model

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

PALAVER = [sys.executable, "-m", "bots.cli"]
DEADLINE_S = 120.0
LONG = ("--max-tokens", "200", "--temperature", "0.8", "Tell me a very long story about a lighthouse keeper.")
#: Must never be found in a log.
MARKER = "quixotic-marmalade"


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


@contextlib.contextmanager
def new_home(**extra: str) -> Iterator[Home]:
    embedded_model.directory()
    directory = Path(tempfile.mkdtemp(prefix="plv"))
    (directory / "models").symlink_to(embedded_model.DATA_DIR / "models")
    home = Home(directory, extra)
    try:
        yield home
    finally:
        home.run("down")
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A running ``palaver up``."""
    with new_home(PALAVER_LOG_LEVEL="debug") as home:
        log = home.directory / "test.log"
        with log.open("w") as output:
            up = home.start("up", stdout=output, stderr=output)
        home.extra = {}
        wait_for(lambda: ready(home), up, log)
        yield home
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0, log.read_text()[-2_000:]
        wait_for(lambda: not home.processes())
        assert MARKER not in log.read_text(), "no prompt is ever logged"


@pytest.fixture
def empty() -> Iterator[Home]:
    """A data directory where nothing runs."""
    with new_home() as home:
        yield home


def ready(home: Home) -> bool:
    done = home.run("status", "--json")
    return done.returncode == 0 and any(worker["ready"] for worker in json.loads(done.stdout)["workers"])


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
    told = [line for line in done.stderr.splitlines() if not re.match(r"palaver: (starting|loading|waiting)", line)]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("palaver: ")
    assert all(word in told[0] for word in words), told[0]
    assert done.stdout == ""


# A question of a script


def test_a_question_is_answered_on_standard_output_alone(home):
    done = home.run("chat", "--temperature", "0", "--max-tokens", "40", "What is the capital of France?")
    assert (done.returncode, done.stderr) == (0, "")
    assert "Paris" in done.stdout


def test_piped_text_follows_the_question(home):
    done = home.run(
        "chat", "--temperature", "0", "--max-tokens", "40", "--json", "Which city?", piped=f"Rome. {MARKER}"
    )
    assert done.returncode == 0, done.stderr
    alone = home.run("chat", "--max-tokens", "5", piped="Say hello.")
    assert alone.returncode == 0
    assert alone.stdout.strip()


def test_json_tells_everything_once(home):
    done = home.run("chat", "--json", "--temperature", "0", "--max-tokens", "30", "Name a colour.")
    told = lines_of(done)
    assert [told[0]["type"], told[-1]["type"]] == ["submitted", "finished"]
    assert len({line["job_id"] for line in told}) == 1
    assert "".join(line["text"] for line in told if line["type"] == "delta") == told[-1]["text"]
    usage = told[-1]["usage"]
    assert usage["prompt_tokens"] > 5
    assert 1 <= usage["completion_tokens"] <= 30


def test_a_persona_is_heeded_by_the_prompt(home):
    plain = lines_of(home.run("chat", "--json", "--max-tokens", "2", "Hello"))[-1]
    long_persona = "You are a pirate who loves the sea. " * 10
    pirate = lines_of(home.run("chat", "--json", "--max-tokens", "2", "--persona", long_persona, "Hello"))[-1]
    assert pirate["usage"]["prompt_tokens"] > plain["usage"]["prompt_tokens"] + 50


def test_ctrl_c_stops_the_answer_and_the_program(home):
    chat = home.start("chat", "--json", *LONG)
    job_id = first_delta(chat)
    chat.send_signal(signal.SIGINT)
    out, err = chat.communicate(timeout=DEADLINE_S)
    assert chat.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["type"] == "cancelled"
    again = home.run("chat", "--json", "--follow", job_id)
    assert lines_of(again)[-1]["type"] == "cancelled"
    wait_for(lambda: not any(worker["in_flight"] for worker in home.status()["workers"]))


def test_a_reader_that_goes_away_stops_the_answer(home):
    chat = home.start("chat", "--json", *LONG)
    job_id = first_delta(chat)
    assert chat.stdout
    chat.stdout.close()
    assert chat.wait(DEADLINE_S) == 141
    assert lines_of(home.run("chat", "--json", "--follow", job_id))[-1]["type"] == "cancelled"


def test_a_killed_front_end_loses_nothing(home):
    chat = home.start("chat", "--json", *LONG)
    job_id = first_delta(chat)
    chat.kill()
    chat.wait()
    again = lines_of(home.run("chat", "--json", "--follow", job_id))
    assert again[-1]["type"] == "finished"
    assert "".join(line["text"] for line in again if line["type"] == "delta") == again[-1]["text"]
    later = lines_of(home.run("chat", "--json", "--follow", job_id))
    assert later[-1] == again[-1], "it is told again word for word"


@pytest.mark.kill
def test_a_killed_worker_still_answers_once(home):
    chat = home.start("chat", "--json", *LONG)
    first_delta(chat)
    for worker in home.status()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    out, err = chat.communicate(timeout=DEADLINE_S)
    assert chat.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in told if line["type"] in ("finished", "failed", "cancelled")] == ["finished"]
    anew = [number for number, line in enumerate(told) if line["type"] == "restarted"]
    since = told[anew[-1] + 1 :] if anew else told
    assert "".join(line["text"] for line in since if line["type"] == "delta") == told[-1]["text"]
    wait_for(lambda: ready(home))


def first_delta(chat: subprocess.Popen[str]) -> str:
    """Read until text has come; returns the job's id."""
    assert chat.stdout
    for line in chat.stdout:
        told = json.loads(line)
        if told["type"] == "delta":
            return told["job_id"]
    raise AssertionError(chat.stderr.read() if chat.stderr else "it ended")


# A conversation at a terminal


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


def test_a_conversation(home):
    with at_terminal(home, "chat", "--temperature", "0", "--max-tokens", "400") as terminal:
        converse(terminal)


def converse(terminal: Terminal) -> None:
    terminal.until("> ")
    terminal.type("What is the capital of France?\r")
    assert "Paris" in terminal.until(r"\d+ tokens")
    terminal.until("> ")
    terminal.type("Tell me a very long story about a lighthouse keeper.\r")
    terminal.until("writing")
    terminal.type("\x03")
    terminal.until("stopped")
    terminal.until("> ")
    terminal.type("/usage\r")
    terminal.until(r"2 turns kept; [1-9]\d* prompt tokens")
    terminal.until("> ")
    terminal.type("/new\r")
    terminal.until("A new conversation")
    terminal.until("> ")
    terminal.type("/persona Speak like a pirate.\r")
    terminal.until("The persona is set")
    terminal.until("> ")
    terminal.type("/nonsense\r")
    terminal.until("no command /nonsense")
    terminal.until("> ")
    # A person is slower: Python does not notice a signal between readline's prompt and its wait for a key.
    time.sleep(0.5)
    terminal.type("\x03")
    terminal.until("> ")
    assert terminal.leave() == 0


# What runs


def test_status_tells_what_runs(home):
    status = home.status()
    assert status["server"]["embedded"]
    assert status["server"]["durable"]
    assert [queue["kind"] for queue in status["queues"]] == ["chat", "image"]
    assert [worker["engine"]["model"] for worker in status["workers"]] == [embedded_model.NAME]
    assert "slots" in home.run("status").stdout


def test_a_second_up_is_refused(home):
    assert_one_line(home.run("up"), 75, "already runs", "palaver down")


def test_the_demo_ends_well(home):
    done = home.run("demo")
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stdout
    assert re.search(r"stopped after \d+ characters", done.stdout)


def test_the_demo_at_a_terminal_ends_in_a_conversation(home):
    with at_terminal(home, "demo") as terminal:
        terminal.until("oak-workspace")
        terminal.until(r"stopped after \d+ characters")
        terminal.until("your turn")
        terminal.until("> ")
        assert terminal.leave() == 0


def test_chat_starts_what_it_needs_and_takes_it_down(empty):
    done = empty.run("chat", "--temperature", "0", "--max-tokens", "20", "What is the capital of France?")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout
    assert "loading" in done.stderr
    assert empty.processes() == []
    assert_one_line(empty.run("status"), 69, "palaver up")


def test_what_is_kept_is_joined_until_it_is_taken_down(empty):
    assert empty.run("chat", "--keep", "--max-tokens", "5", "Hello").returncode == 0
    joined = empty.run("chat", "--max-tokens", "5", "Hello")
    assert (joined.returncode, joined.stderr) == (0, ""), "nothing had to be started"
    assert empty.status()["workers"]
    assert empty.run("down").returncode == 0
    wait_for(lambda: not empty.processes())


# What goes wrong is said in one line


@pytest.mark.parametrize("command", [("status",), ("chat", "Hello"), ("up",), ("worker",), ("demo",)])
def test_redis_away(empty, command):
    empty.extra = {"REDIS_URL": "redis://127.0.0.1:1/0"}
    assert_one_line(empty.run(*command), 69, "127.0.0.1:1", "REDIS_URL")


def test_a_wrong_setting(empty):
    empty.extra = {"PALAVER_CHAT__MODLE": "x"}
    assert_one_line(empty.run("chat", "Hello"), 78, "PALAVER_CHAT__MODLE", "did you mean PALAVER_CHAT__MODEL?")


def test_a_data_directory_that_cannot_be_written(empty):
    (empty.directory / "file").write_text("")
    empty.extra = {"PALAVER_DATA_DIR": str(empty.directory / "file" / "data")}
    assert_one_line(empty.run("chat", "Hello"), 69, "cannot be written", "PALAVER_DATA_DIR")


def test_a_model_that_does_not_exist(empty):
    empty.extra = {"PALAVER_CHAT__MODEL": "no-such-model"}
    assert_one_line(empty.run("chat", "Hello"), 66, "no-such-model", "smollm2-135m-instruct")
    assert empty.processes() == []


def test_no_question(empty):
    assert_one_line(empty.run("chat"), 78, "no question")


def test_a_tenant_that_cannot_be(home):
    assert_one_line(home.run("chat", "--tenant", "a__b", "Hello"), 65, "tenant")
