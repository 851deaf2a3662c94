"""The forwarding backend against a real server of transformers, and against servers that fail in every way."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest

from generation.chat.config import ChatConfig
from generation.chat.factory import build
from generation.chat.openai_backend import OpenAIBackend
from generation.errors import ModelError
from generation.types import ChatRequest, Delta, EngineEvent, Failed, Finished, Message, Sampling
from tests import embedded_model

Handler = Callable[[dict[str, object], asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def request(name: str, text: str = "Say hello.", deadline_s: float | None = None, **sampling: object) -> ChatRequest:
    settings: dict[str, object] = {"temperature": 0.0, "max_new_tokens": 16, **sampling}
    return ChatRequest(name, (Message("user", text),), Sampling(**settings), deadline_s)


def run(backend: OpenAIBackend, timeout_s: float = 60) -> list[EngineEvent]:
    """Every event until nothing is in flight."""
    events: list[EngineEvent] = []
    deadline = time.monotonic() + timeout_s
    while backend.busy:
        assert time.monotonic() < deadline, "the backend does not come to an end"
        events += backend.step()
    return events


def text_of(events: list[EngineEvent], name: str) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta) and event.request_id == name)


def end_of(events: list[EngineEvent], name: str) -> Finished | Failed:
    ends = [event for event in events if not isinstance(event, Delta) and event.request_id == name]
    assert len(ends) == 1
    assert [event for event in events if event.request_id == name][-1] is ends[0]
    return ends[0]


# A real server.


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[str, str]]:
    """URL and model name of ``transformers serve`` with the embedded model."""
    pytest.importorskip("fastapi")
    model = str(embedded_model.directory())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    program = Path(sys.executable).with_name("transformers")
    command = [program, "serve", model, "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "GOMP_SPINCOUNT": "0", "OMP_NUM_THREADS": "2"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 180
        while not _healthy(port):
            assert process.poll() is None, "transformers serve has ended"
            assert time.monotonic() < deadline, "transformers serve does not start"
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}/v1", model
    finally:
        process.kill()
        process.wait()


def _healthy(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health", timeout=1).status_code == 200
    except httpx.HTTPError:
        return False


@pytest.fixture
def real(served: tuple[str, str]) -> Iterator[OpenAIBackend]:
    backend = build({"backend": "openai", "model": served[1], "api_base_url": served[0]}, lambda *_: None)
    assert isinstance(backend, OpenAIBackend)
    yield backend
    backend.close()


@pytest.mark.model
def test_a_real_server_streams_and_reports_usage(real):
    real.submit(request("a", "What is the capital of France?"))
    events = run(real)
    assert "Paris" in text_of(events, "a")
    end = end_of(events, "a")
    assert isinstance(end, Finished)
    assert end.usage.prompt_tokens > 20
    assert 3 <= end.usage.completion_tokens <= 16
    assert 0 < end.usage.ttft_s < end.usage.duration_s
    assert sum(isinstance(event, Delta) for event in events) > 2, "it comes in pieces"


@pytest.mark.model
def test_a_real_server_answers_several_at_once_each_as_it_does_alone(real):
    questions = ["What is the capital of France?", "Say hello.", "Count to five."]
    alone = []
    for question in questions:
        real.submit(request("one", question, max_new_tokens=8))
        alone.append(text_of(run(real), "one"))
    for number, question in enumerate(questions):
        real.submit(request(str(number), question, max_new_tokens=8))
    events = run(real)
    assert [text_of(events, str(number)) for number in range(len(questions))] == alone
    ends = [end_of(events, str(number)) for number in range(len(questions))]
    shares = sum(end.usage.gpu_s for end in ends if isinstance(end, Finished))
    longest = max(end.usage.duration_s for end in ends if isinstance(end, Finished))
    assert shares == pytest.approx(longest, abs=0.25 * longest), "the time of the server is split, not counted twice"


@pytest.mark.model
def test_a_real_servers_length_and_stop_strings(real):
    real.submit(request("length", "Count from one to a hundred.", max_new_tokens=5))
    real.submit(request("stop", "What is the capital of France?", stop=("Paris",), max_new_tokens=40))
    events = run(real)
    assert end_of(events, "length").finish_reason == "length"
    assert end_of(events, "length").usage.completion_tokens == 5
    assert end_of(events, "stop").finish_reason == "stop"
    assert text_of(events, "stop")
    assert "Paris" not in text_of(events, "stop")


@pytest.mark.model
def test_a_real_server_stops_when_cancelled_and_serves_the_next(real):
    real.submit(request("long", "Write a very long story about the sea.", max_new_tokens=2000))
    while not (events := real.step()):
        continue
    assert isinstance(events[0], Delta)
    real.cancel("long")
    assert not real.busy
    assert real.step() == []
    real.submit(request("next"))
    assert isinstance(end_of(run(real), "next"), Finished)


@pytest.mark.model
def test_a_deadline_ends_a_real_answer_as_it_is(real):
    real.submit(request("a", "Write a very long story about the sea.", max_new_tokens=2000, deadline_s=3.0))
    end = end_of(run(real), "a")
    assert isinstance(end, Finished)
    assert end.finish_reason == "deadline"


@pytest.mark.model
def test_a_real_servers_refusal_of_a_model_is_clear(served):
    backend = OpenAIBackend(ChatConfig(backend="openai", model="other", api_base_url=served[0]))
    backend.submit(request("a"))
    end = end_of(run(backend), "a")
    assert isinstance(end, Failed)
    assert not end.retryable
    assert "does not accept this request" in end.message
    backend.close()


# Servers that misbehave, on real sockets.


@pytest.fixture
def serve() -> Iterator[Callable[[Handler], str]]:
    """A function that starts a server with one behaviour and returns its URL."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    servers: list[asyncio.Server] = []

    def start(handler: Handler) -> str:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            length = int(re.search(r"content-length: (\d+)", head, re.IGNORECASE)[1])
            body = json.loads(await reader.readexactly(length))
            body["authorization"] = re.findall(r"(?i)authorization: (.*)\r", head)
            with contextlib.suppress(ConnectionError):  # the backend may hang up first
                await handler(body, reader, writer)
                await writer.drain()
            writer.close()

        server = asyncio.run_coroutine_threadsafe(asyncio.start_server(connected, "127.0.0.1", 0), loop).result(10)
        servers.append(server)
        return f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"

    async def stop() -> None:
        for server in servers:
            server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    yield start
    asyncio.run_coroutine_threadsafe(stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)


@pytest.fixture
def connect() -> Iterator[Callable[..., OpenAIBackend]]:
    """A function that connects a backend to a URL."""
    backends: list[OpenAIBackend] = []

    def to(url: str, **options: object) -> OpenAIBackend:
        backends.append(OpenAIBackend(ChatConfig(backend="openai", model="m", api_base_url=url, **options)))
        return backends[-1]

    yield to
    for backend in backends:
        backend.close()


STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"


def chunk(text: str | None = None, finish: str | None = None, usage: dict[str, object] | None = None) -> bytes:
    delta = {} if text is None else {"content": text}
    data: dict[str, object] = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    if usage is not None:
        data = {"choices": [], "usage": usage}
    return f"data: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


def plain(status: str, body: str = "", *headers: str) -> Handler:
    """A server that always gives the same answer."""

    async def handler(_: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [f"HTTP/1.1 {status}", f"content-length: {len(body.encode())}", "connection: close", *headers]
        writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())

    return handler


def streaming(*parts: bytes | float) -> Handler:
    """A server that sends these bytes, waits these seconds, and closes."""

    async def handler(_: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD)
        for part in parts:
            if isinstance(part, bytes):
                writer.write(part)
                await writer.drain()
            else:
                await asyncio.sleep(part)

    return handler


def outcome(backend: OpenAIBackend, **sampling: object) -> tuple[str, Finished | Failed]:
    backend.submit(request("a", **sampling))
    events = run(backend)
    return text_of(events, "a"), end_of(events, "a")


SECRET = "sk-very-secret"


@pytest.mark.parametrize(
    ("answer", "code", "retryable", "told"),
    [
        (
            plain("401 Unauthorized", '{"error": {"message": "bad key sk-very-secret"}}'),
            "backend_error",
            False,
            "API key",
        ),
        (plain("403 Forbidden"), "backend_error", False, "API key"),
        (plain("404 Not Found", '{"error": "x"}'), "model_not_found", False, "no model 'm'"),
        (plain("429 Too Many", "", "retry-after: 7"), "backend_unavailable", True, "Try again in 7 s"),
        (plain("429 Too Many"), "backend_unavailable", True, "Try again later"),
        (plain("500 Oops", "Say hello."), "backend_unavailable", True, "failed (500)"),
        (plain("503 Busy"), "backend_unavailable", True, "failed (503)"),
        (plain("307 Elsewhere", "", "location: /"), "backend_error", False, "status 307"),
        (
            plain("400 Bad", '{"error": {"code": "bad_option", "message": "Say hello."}}'),
            "invalid_request",
            False,
            "bad_option",
        ),
        (plain("422 Bad", "[1]"), "invalid_request", False, "422"),
        (
            plain("400 Bad", '{"error": {"message": "maximum context length is 9 tokens"}}'),
            "prompt_too_long",
            False,
            "Shorten",
        ),
        (plain("200 OK", "<html>", "content-type: text/html"), "backend_error", False, "often it ends in /v1"),
        (streaming(), "backend_unavailable", True, "in its middle"),
        (streaming(chunk("half")), "backend_unavailable", True, "in its middle"),
        (streaming(chunk("half"), b"data: {not json\n\n"), "backend_unavailable", True, "cannot be read"),
        (streaming(chunk("half"), b"data: []\n\n"), "backend_unavailable", True, "cannot be read"),
        (
            streaming(chunk("half"), b'data: {"error": {"message": "Say hello."}}\n\n'),
            "backend_unavailable",
            True,
            "failed in",
        ),
        (streaming(chunk("half"), 5.0), "backend_unavailable", True, "sent nothing for 0.5 s"),
    ],
)
def test_every_failure_is_mapped(serve, connect, answer, code, retryable, told):
    backend = connect(serve(answer), api_key=SECRET, api_timeout_s=0.5)
    _, end = outcome(backend)
    assert isinstance(end, Failed)
    assert (end.code, end.retryable) == (code, retryable)
    assert told in end.message
    assert SECRET not in end.message
    assert "Say hello" not in end.message, "what a server says may quote the prompt"
    assert not backend.busy


def test_a_broken_transfer_is_retryable(serve, connect):
    async def handler(_: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        data = chunk("half")
        writer.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        await writer.drain()

    text, end = outcome(connect(serve(handler)))
    assert text == "half"
    assert isinstance(end, Failed)
    assert end.retryable
    assert "broke off" in end.message


def test_a_server_that_is_not_there_is_retryable(connect):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        _, end = outcome(connect(f"http://127.0.0.1:{unused.getsockname()[1]}/v1"))
    assert isinstance(end, Failed)
    assert end.retryable
    assert "cannot be reached" in end.message


@pytest.mark.parametrize("url", [None, "", "localhost:8000", "ftp://x/", "http://"])
def test_a_wrong_base_url_is_told_at_the_start(url):
    with pytest.raises(ModelError, match="needs api_base_url, for example http://localhost:8000/v1"):
        OpenAIBackend(ChatConfig(backend="openai", model="m", api_base_url=url))


def test_what_is_sent(serve, connect):
    bodies: list[dict[str, object]] = []

    async def handler(body: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(body)
        writer.write(STREAM_HEAD + chunk("x", "stop"))

    backend = connect(serve(handler), api_key=SECRET)
    outcome(backend)
    outcome(
        backend, temperature=0.5, top_k=3, min_p=0.1, repetition_penalty=1.5, seed=7, stop=("a", "b", "c", "d", "e")
    )
    plain_body, full_body = bodies
    assert plain_body["authorization"] == [f"Bearer {SECRET}"]
    assert plain_body["messages"] == [{"role": "user", "content": "Say hello."}]
    assert plain_body["stream_options"] == {"include_usage": True}
    assert not {"top_k", "min_p", "repetition_penalty", "seed", "stop"} & set(plain_body)
    assert full_body["stop"] == ["a", "b", "c", "d"], "OpenAI accepts four"
    assert (full_body["top_k"], full_body["min_p"], full_body["seed"]) == (3, 0.1, 7)


def test_what_is_no_conversation_is_refused_here_as_by_every_engine(connect):
    backend = connect("http://127.0.0.1:9/v1")
    backend.submit(request("a", "  "))
    end = end_of(run(backend), "a")
    assert isinstance(end, Failed)
    assert (end.code, end.retryable) == ("invalid_request", False)


def test_usage_after_the_end_in_pieces_with_odd_line_ends(serve, connect):
    usage = {"prompt_tokens": 9, "completion_tokens": 5, "prompt_tokens_details": {"cached_tokens": 4}}
    whole = b": hello\r\n\r\n" + chunk("a\u2028b") + chunk("\x85é🙂") + chunk(finish="length") + chunk(usage=usage)
    whole += b"data: [DONE]\n\n"
    pieces = [whole[place : place + 7] for place in range(0, len(whole), 7)]
    text, end = outcome(connect(serve(streaming(*pieces))))
    assert text == "a\u2028b\x85é🙂"
    assert isinstance(end, Finished)
    assert end.finish_reason == "length"
    assert (end.usage.prompt_tokens, end.usage.completion_tokens, end.usage.cached_tokens) == (9, 5, 4)


def test_without_usage_the_pieces_are_counted(serve, connect):
    _, end = outcome(connect(serve(streaming(chunk("a"), chunk("b"), chunk(finish="stop")))))
    assert isinstance(end, Finished)
    assert end.usage.completion_tokens == 2


def test_a_stop_string_ends_the_answer_here_and_the_connection_there(serve, connect):
    closed = threading.Event()

    async def handler(_: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk("One E") + chunk("N") + chunk("two EN") + chunk("D three"))
        await writer.drain()
        await reader.read()
        closed.set()

    text, end = outcome(connect(serve(handler)), stop=("END", "zzz"))
    assert text == "One ENtwo "
    assert isinstance(end, Finished)
    assert end.finish_reason == "stop"
    assert closed.wait(10)


def test_cancelling_closes_the_connection_and_nothing_more_is_reported(serve, connect):
    begun, closed = threading.Event(), threading.Event()

    async def handler(_: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(STREAM_HEAD + chunk("begun"))
        await writer.drain()
        begun.set()
        with contextlib.suppress(ConnectionError):
            await reader.read()
        closed.set()

    backend = connect(serve(handler))
    backend.submit(request("a"))
    assert begun.wait(10)
    backend.cancel("a")
    backend.cancel("a")
    backend.cancel("unknown")
    assert not backend.busy
    assert backend.step() == []
    assert closed.wait(10)


def test_an_id_that_comes_back_after_a_cancel_is_a_new_request(serve, connect):
    count = 0

    async def handler(_: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        count += 1
        writer.write(STREAM_HEAD + chunk(f"answer {count}", "stop"))

    backend = connect(serve(handler))
    backend.submit(request("a"))
    time.sleep(0.3)  # its events wait unseen
    backend.cancel("a")
    backend.submit(request("a"))
    events = run(backend)
    assert text_of(events, "a") == "answer 2"
    assert isinstance(end_of(events, "a"), Finished)


def test_a_deadline_keeps_what_there_is(serve, connect):
    backend = connect(serve(streaming(chunk("so far END-"), 30.0)))
    backend.submit(request("a", deadline_s=0.5, stop=("END-OF-TEXT",)))
    events = run(backend)
    assert text_of(events, "a") == "so far END-", "what was held back for a stop string is text after all"
    assert end_of(events, "a").finish_reason == "deadline"


def test_the_oldest_turns_go_while_the_server_finds_the_conversation_too_long(serve, connect):
    lengths: list[int] = []

    async def handler(body: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        messages = body["messages"]
        assert isinstance(messages, list)
        lengths.append(len(messages))
        if len(messages) > 6:
            await plain("400 Bad", '{"error": {"code": "context_length_exceeded"}}')(body, reader, writer)
        else:
            roles = "".join(message["role"][0] for message in messages)
            writer.write(STREAM_HEAD + chunk(f"{roles} {messages[-1]['content']}", "stop"))

    backend = connect(serve(handler))
    turns = [Message(("user", "assistant")[number % 2], str(number)) for number in range(21)]
    backend.submit(ChatRequest("a", (Message("system", "s"), *turns)))
    events = run(backend)
    assert text_of(events, "a") == "suau 20"
    assert lengths == [22, 10, 4]
    end = end_of(events, "a")
    assert isinstance(end, Finished)
    assert end.usage.dropped_messages == 18


def test_many_requests_are_in_flight_at_once(serve, connect):
    waiting, together = 0, asyncio.Event()

    async def handler(body: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 32:
            together.set()
        await together.wait()
        messages = body["messages"]
        assert isinstance(messages, list)
        writer.write(STREAM_HEAD + chunk(messages[0]["content"], "stop"))

    backend = connect(serve(handler), slots=32)
    for number in range(32):
        backend.submit(request(str(number), f"question {number}"))
    events = run(backend)
    for number in range(32):
        assert text_of(events, str(number)) == f"question {number}"
        assert isinstance(end_of(events, str(number)), Finished)


def test_closing_ends_the_thread_and_is_idempotent(serve, connect):
    before = threading.active_count()
    backend = connect(serve(streaming(chunk("begun"), 60.0)))
    backend.submit(request("a"))
    backend.step()
    backend.close()
    backend.close()
    assert threading.active_count() == before
    assert not backend.busy
    assert backend.info.backend == "openai"
