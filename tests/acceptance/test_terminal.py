"""The ``palaver`` command as people and scripts use it: real processes, a real server, the real embedded model."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests import embedded_model
from tests.homes import (
    DEADLINE_S,
    Home,
    Terminal,
    assert_one_line,
    at_terminal,
    image_model,
    lines_of,
    new_home,
    ready,
    wait_for,
)

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

LONG = ("--max-tokens", "200", "--temperature", "0.8", "Tell me a very long story about a lighthouse keeper.")
#: To be stopped: its first sentence is shown long before its end.
LONGER = ("--max-tokens", "1000", *LONG[2:])
#: Must never be found in a log.
MARKER = "quixotic-marmalade"


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    """A running ``palaver up``."""
    with new_home(PALAVER_LOG_LEVEL="debug") as home:
        log = home.directory / "test.log"
        with log.open("w") as output:
            up = home.start("up", stdout=output, stderr=output)
        del home.extra["PALAVER_LOG_LEVEL"]
        wait_for(lambda: ready(home, "chat", "image"), up, log)
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
    chat = home.start("chat", "--json", *LONGER)
    job_id = first_delta(chat)["job_id"]
    chat.send_signal(signal.SIGINT)
    out, err = chat.communicate(timeout=DEADLINE_S)
    assert chat.returncode == 130, err
    assert json.loads(out.splitlines()[-1])["type"] == "cancelled"
    again = home.run("chat", "--json", "--follow", job_id)
    assert lines_of(again)[-1]["type"] == "cancelled"
    wait_for(lambda: not any(worker["in_flight"] for worker in home.status()["workers"]))


def test_a_reader_that_goes_away_stops_the_answer(home):
    chat = home.start("chat", "--json", *LONGER)
    job_id = first_delta(chat)["job_id"]
    assert chat.stdout
    chat.stdout.close()
    assert chat.wait(DEADLINE_S) == 141
    assert lines_of(home.run("chat", "--json", "--follow", job_id))[-1]["type"] == "cancelled"


def test_a_killed_front_end_loses_nothing(home):
    chat = home.start("chat", "--json", *LONG)
    job_id = first_delta(chat)["job_id"]
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
    begun = first_delta(chat)
    for worker in home.status()["workers"]:
        os.kill(worker["pid"], signal.SIGKILL)
    out, err = chat.communicate(timeout=DEADLINE_S)
    assert chat.returncode == 0, err
    told = [json.loads(line) for line in out.splitlines()]
    assert [line["type"] for line in told if line["type"] in ("finished", "failed", "cancelled")] == ["finished"]
    anew = [number for number, line in enumerate(told) if line["type"] == "restarted"]
    since = told[anew[-1] + 1 :] if anew else [begun, *told]
    assert "".join(line["text"] for line in since if line["type"] == "delta") == told[-1]["text"]
    wait_for(lambda: ready(home))


def first_delta(chat: subprocess.Popen[str]) -> dict[str, Any]:
    """Read until text has come; returns what told it."""
    assert chat.stdout
    for line in chat.stdout:
        told = json.loads(line)
        if told["type"] == "delta":
            return told
    raise AssertionError(chat.stderr.read() if chat.stderr else "it ended")


# A conversation at a terminal


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
    assert [queue["kind"] for queue in status["queues"]] == ["chat", "image", "answer"]
    models = {worker["kind"]: worker["engine"]["model"] for worker in status["workers"]}
    assert models == {"chat": embedded_model.NAME, "image": str(image_model())}
    assert "slots" in home.run("status").stdout


def test_a_second_up_is_refused(home):
    assert_one_line(home.run("up"), 75, "already runs", "palaver down")


def test_the_demo_ends_well(home):
    done = home.run("demo")
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stdout
    assert re.search(r"stopped after \d+ characters", done.stdout)
    sheet = home.directory / "demo" / "pictures.png"
    assert "the first preview after" in done.stdout
    assert str(sheet) in done.stdout
    assert sheet.read_bytes().startswith(b"\x89PNG")


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
