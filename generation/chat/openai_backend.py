"""The chat engine that forwards to an OpenAI-compatible server (vLLM, llama.cpp, Ollama, ``transformers serve``).

Same interface as the engine that computes here: the caller's thread submits, cancels and steps; a thread of this
backend holds the connections, one per answer. Nothing is retried here: that is the affair of the queue.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from generation.chat.config import ChatConfig
from generation.chat.openai_errors import ContextExceededError
from generation.chat.openai_stream import Completion, Server
from generation.chat.prompt import checked
from generation.chat.stop_strings import StopFilter
from generation.errors import GenerationError, ModelError
from generation.types import ChatRequest, Delta, EngineEvent, EngineInfo, Failed, Finished, FinishReason, Message, Usage

_log = logging.getLogger("palaver.openai")

_DEFAULT_SLOTS = 64
_CONNECT_S = 10.0
_STEP_WAIT_S = 0.05
_CLOSE_S = 10.0


@dataclass(slots=True, eq=False)
class _Answer:
    """One request in flight. A request id may come back after a cancel; this object is what tells the runs apart."""

    request: ChatRequest
    filter: StopFilter
    started_s: float = field(default_factory=time.monotonic)
    first_text_s: float | None = None
    share_s: float = 0.0
    dropped_messages: int = 0
    completion: Completion = field(default_factory=Completion)
    task: asyncio.Task[None] | None = None


class OpenAIBackend:
    """Forwards chat requests to a server; satisfies ``generation.types.Engine``.

    Args:
        config: With ``api_base_url`` and, where the server wants one, ``api_key``; ``model`` is the server's name of
            the model, ``slots`` the number of answers in flight (64 if 0).

    Raises:
        ModelError: The base URL is absent or is not one.
    """

    def __init__(self, config: ChatConfig) -> None:
        url = _checked_url(config.api_base_url)
        slots = config.slots or _DEFAULT_SLOTS
        name = url.netloc.decode("ascii")
        self._info = EngineInfo(config.model, "openai", name, "remote", slots, config.context_tokens)
        self._events: queue.SimpleQueue[tuple[_Answer, EngineEvent]] = queue.SimpleQueue()
        self._live: dict[str, _Answer] = {}
        self._in_flight: set[_Answer] = set()  # touched by the loop's thread alone
        self._shared_at_s = time.monotonic()
        self._closed = False
        self._loop = asyncio.new_event_loop()
        headers = {"Authorization": f"Bearer {config.api_key}"} if config.api_key else {}
        client = httpx.AsyncClient(
            base_url=url,
            headers=headers,
            timeout=httpx.Timeout(config.api_timeout_s, connect=min(_CONNECT_S, config.api_timeout_s), pool=None),
            limits=httpx.Limits(max_connections=slots, max_keepalive_connections=slots),
        )
        self._server = Server(client, name, config.model, config.api_timeout_s)
        self._thread = threading.Thread(target=self._loop.run_forever, name="palaver-openai", daemon=True)
        self._thread.start()

    @property
    def info(self) -> EngineInfo:
        """What runs there."""
        return self._info

    @property
    def busy(self) -> bool:
        """Whether any request is in flight."""
        return bool(self._live)

    def submit(self, request: ChatRequest) -> None:
        """Send a request at once; whatever is wrong with it comes out of ``step`` as ``Failed``."""
        self.cancel(request.request_id)
        answer = _Answer(request, StopFilter(request.sampling.stop))
        self._live[request.request_id] = answer
        self._loop.call_soon_threadsafe(self._begin, answer)

    def cancel(self, request_id: str) -> None:
        """Close a request's connection, which makes the server stop; nothing more is reported of it."""
        answer = self._live.pop(request_id, None)
        if answer is not None:
            self._loop.call_soon_threadsafe(self._end, answer)

    def step(self) -> list[EngineEvent]:
        """What has happened since the last step; waits a moment (50 ms) for something when requests are in flight."""
        if not self._live:
            return []
        events: list[EngineEvent] = []
        with contextlib.suppress(queue.Empty):
            self._take(events, *self._events.get(timeout=_STEP_WAIT_S))
            while True:
                self._take(events, *self._events.get_nowait())
        return events

    def close(self) -> None:
        """Close every connection and end the thread; idempotent."""
        if self._closed:
            return
        self._closed = True
        self._live.clear()
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result(_CLOSE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CLOSE_S)
        self._loop.close()

    def _take(self, events: list[EngineEvent], answer: _Answer, event: EngineEvent) -> None:
        if self._live.get(event.request_id) is not answer:
            return  # cancelled since
        if not isinstance(event, Delta):
            del self._live[event.request_id]
        events.append(event)

    # What follows runs in the loop's thread.

    def _begin(self, answer: _Answer) -> None:
        self._share_time()
        self._in_flight.add(answer)
        answer.task = self._loop.create_task(self._run(answer))
        answer.task.add_done_callback(lambda _: self._leave(answer))  # also of one that is cancelled before it began

    def _leave(self, answer: _Answer) -> None:
        self._share_time()
        self._in_flight.discard(answer)

    def _end(self, answer: _Answer) -> None:
        if answer.task is not None:
            answer.task.cancel()

    async def _shut(self) -> None:
        tasks = [answer.task for answer in self._in_flight if answer.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.client.aclose()

    async def _run(self, answer: _Answer) -> None:
        request_id = answer.request.request_id
        try:
            reason = await self._answer(answer)
            self._report(answer, Finished(request_id, reason, self._usage(answer)))
        except GenerationError as error:
            self._report(answer, Failed(request_id, error.code, str(error), error.retryable))
        except Exception as error:  # noqa: BLE001 - whatever it is, the request must end
            _log.error("request %s failed: %s", request_id, type(error).__name__)
            self._report(answer, Failed(request_id, GenerationError.code, "The model backend failed.", retryable=True))

    async def _answer(self, answer: _Answer) -> FinishReason:
        """Stream the answer; while the server says that the conversation is too long, leave out the older half."""
        system, turns = checked(answer.request.messages)
        messages: Sequence[Message] = [system, *turns] if system else turns
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(answer.request.deadline_s):
                while True:
                    try:
                        return await self._stream(answer, messages)
                    except ContextExceededError:
                        shorter = _newer_half(messages)
                        if len(shorter) == len(messages):
                            raise
                        answer.dropped_messages += len(messages) - len(shorter)
                        messages = shorter
        self._tell(answer, answer.filter.flush())
        return "deadline"

    async def _stream(self, answer: _Answer, messages: Sequence[Message]) -> FinishReason:
        pieces = self._server.stream(messages, answer.request.sampling, answer.completion)
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                self._tell(answer, answer.filter.add(piece))
                if answer.filter.stopped:
                    return "stop"
        self._tell(answer, answer.filter.flush())
        return answer.completion.finish_reason or "stop"

    def _tell(self, answer: _Answer, text: str) -> None:
        if text:
            if answer.first_text_s is None:
                answer.first_text_s = time.monotonic()
            self._report(answer, Delta(answer.request.request_id, text))

    def _report(self, answer: _Answer, event: EngineEvent) -> None:
        self._events.put((answer, event))

    def _usage(self, answer: _Answer) -> Usage:
        self._share_time()
        completion, duration_s = answer.completion, time.monotonic() - answer.started_s
        first_s = answer.first_text_s
        return Usage(
            prompt_tokens=completion.prompt_tokens,
            cached_tokens=completion.cached_tokens,
            # Without the server's count: most servers send a piece for each token.
            completion_tokens=completion.completion_tokens or completion.pieces,
            dropped_messages=answer.dropped_messages,
            ttft_s=duration_s if first_s is None else first_s - answer.started_s,
            duration_s=duration_s,
            gpu_s=answer.share_s,
        )

    def _share_time(self) -> None:
        """Split the time since the last change over the answers in flight: the server's own split is not known."""
        now = time.monotonic()
        for answer in self._in_flight:
            answer.share_s += (now - self._shared_at_s) / len(self._in_flight)
        self._shared_at_s = now


def _checked_url(text: str | None) -> httpx.URL:
    try:
        url = httpx.URL(text or "")
    except httpx.InvalidURL:
        url = httpx.URL("")
    if url.scheme not in ("http", "https") or not url.host:
        raise ModelError("The openai backend needs api_base_url, for example http://localhost:8000/v1")
    return url


def _newer_half(messages: Sequence[Message]) -> list[Message]:
    """The system message, if any, and about the newer half of the turns, from a user's turn on."""
    system = [message for message in messages[:1] if message.role == "system"]
    turns = messages[len(system) :]
    starts = [place for place, turn in enumerate(turns) if turn.role == "user" and place > 0]
    if not starts:
        return list(messages)
    start = next((place for place in starts if place >= len(turns) / 2), starts[-1])
    return [*system, *turns[start:]]
