"""A real engine process: it starts, answers, dies and starts again; failures to start are told in one line."""

import os
import time
from collections.abc import Iterator

import pytest

from tests import engines
from tests.jobs import wait_until
from tests.worker_processes import alive
from workers.engine_channel import Message
from workers.engine_handle import EngineHandle
from workers.engine_process import EngineSpec
from workers.errors import EngineStartError


@pytest.fixture
def handle() -> Iterator[EngineHandle]:
    made = EngineHandle(EngineSpec("tests.engines:build"))
    yield made
    made.kill()


def body(prompt: str) -> dict[str, object]:
    return {"kind": "chat", "messages": [{"role": "user", "content": prompt}], "options": {"max_new_tokens": 4}}


def ready(handle: EngineHandle) -> None:
    handle.start()
    wait_until(lambda: handle.receive() == [] and handle.ready)


def until_end(handle: EngineHandle) -> list[Message]:
    messages: list[Message] = []

    def ended() -> bool:
        messages.extend(handle.receive())
        return bool(messages) and messages[-1][0] != "delta"

    wait_until(ended)
    return messages


def start_error(options: dict[str, object], factory: str = "tests.engines:build") -> EngineStartError:
    failing = EngineHandle(EngineSpec(factory, options))
    failing.start()
    try:
        with pytest.raises(EngineStartError) as caught:
            wait_until(lambda: failing.receive() and False)
    finally:
        failing.kill()
    return caught.value


def test_answers(handle: EngineHandle) -> None:
    ready(handle)
    assert handle.info is not None
    assert handle.info.backend == "words"
    handle.submit([("r1", body("hello"), None)])
    *deltas, end = until_end(handle)
    assert "".join(delta[2] for delta in deltas) == engines.answer("hello", 4)
    assert end[:3] == ["finished", "r1", "stop"]
    assert end[3]["completion_tokens"] == 4


def test_a_request_out_of_range_fails_alone(handle: EngineHandle) -> None:
    ready(handle)
    handle.submit([("r1", body("hello") | {"options": {"temperature": 9}}, None)])
    (end,) = until_end(handle)
    assert end[:3] == ["failed", "r1", "invalid_request"]
    assert "temperature must be between" in end[3]
    handle.submit([("r2", body("hello") | {"options": {"novelty": 9}}, None), ("r3", {"kind": "opera"}, None)])
    wait_until(lambda: sum(message[0] == "failed" for message in handle.receive()) == 2)


def test_an_answer_much_larger_than_the_pipe(handle: EngineHandle) -> None:
    """Neither side reads for a while; both have more to say than any buffer takes."""
    ready(handle)
    prompt = "x" * 3_000_000
    handle.submit([(f"r{index}", body(prompt), None) for index in range(4)])
    time.sleep(0.3)
    ends: list[Message] = []

    def all_ended() -> bool:
        handle.flush()
        ends.extend(message for message in handle.receive() if message[0] == "finished")
        return len(ends) == 4

    wait_until(all_ended)


def test_death_is_noticed_and_the_next_one_works(handle: EngineHandle) -> None:
    ready(handle)
    first = handle.pid
    handle.submit([("r1", body('{"kill": 1, "tokens": 9}'), None)])
    wait_until(lambda: handle.receive() is not None and handle.died())
    assert handle.bury() == -9
    assert handle.start_in_s > 0
    assert not handle.ready
    wait_until(lambda: handle.start_in_s == 0)
    ready(handle)
    assert handle.pid != first
    handle.submit([("r2", body("again"), None)])
    assert until_end(handle)[-1][:2] == ["finished", "r2"]


def test_stops_orderly_and_leaves_nothing(handle: EngineHandle) -> None:
    ready(handle)
    pid = handle.pid
    handle.stop()
    assert not alive(pid)


def test_a_missing_model_is_permanent_and_told_in_its_own_words() -> None:
    error = start_error({"missing": True})
    assert str(error) == "No model is called 'missing'. `palaver models list` shows what there is."
    assert error.permanent
    assert error.code == "model_not_found"


def test_a_missing_library_says_what_to_install() -> None:
    error = start_error({}, "no_such_library:build")
    assert "pip install" in str(error)
    assert error.permanent


def test_other_failures_are_told_in_one_line() -> None:
    error = start_error({"step_s": "not a number"})
    assert "ValueError" in str(error)
    assert "\n" not in str(error)
    assert not error.permanent


def test_a_silent_start_ends(handle: EngineHandle) -> None:
    slow = EngineHandle(EngineSpec("tests.engines:build", {"load_s": 60}), start_timeout_s=0.5)
    slow.start()
    try:
        with pytest.raises(EngineStartError, match="no sign of life"):
            wait_until(lambda: slow.receive() or slow.died())
    finally:
        slow.kill()


def test_secrets_are_neither_on_the_command_line_nor_in_the_representation() -> None:
    spec = EngineSpec("tests.engines:build", {"api_key": "sesame"})
    handle = EngineHandle(spec)
    handle.start()
    try:
        with open(f"/proc/{handle.pid}/cmdline", "rb") as command:  # noqa: PTH123 - a file of the kernel
            assert b"sesame" not in command.read()
        assert "sesame" not in repr(spec)
        assert handle.pid != os.getpid()
    finally:
        handle.kill()
