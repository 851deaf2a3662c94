"""A fast engine whose answers are a pure function of the prompt, so that tests can tell a lost token from a double one.

It steers by what the last message says, as ``{"tokens": 5, "step_s": 0.01}`` or plain text:

    tokens      length of the answer (default: the request's ``max_new_tokens``)
    say         the answer itself, in pieces of ``PIECE`` characters
    kill        at this token the process kills itself with SIGKILL
    hang        at this token the whole process stops stepping for good
    stall       this request alone never gets beyond this token
    fail        at this token ``step`` raises
    refuse      ends as Failed with this code, not retryable
    flaky       ends as Failed, retryable
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from generation.errors import ModelNotFoundError
from generation.moderation.factory import moderated
from generation.types import (
    Delta,
    Engine,
    EngineEvent,
    EngineInfo,
    EngineRequest,
    Failed,
    Finished,
    FinishReason,
    Usage,
)

PIECE = 40
WORDS = ("ash", "birch", "cedar", "elm", "fir", "größe", "hazel", "lärche", "oak", "東京")


def word(prompt: str, index: int) -> str:
    digest = hashlib.sha256(f"{prompt}|{index}".encode()).digest()
    return f"{WORDS[digest[0] % len(WORDS)]}{index} "


def answer(prompt: str, tokens: int) -> str:
    """The one right answer to a prompt."""
    return "".join(word(prompt, index) for index in range(tokens))


def orders_of(prompt: str) -> dict[str, Any]:
    return json.loads(prompt) if prompt.startswith("{") else {}


@dataclass
class _Sequence:
    request: EngineRequest
    prompt: str
    orders: dict[str, Any]
    tokens: int
    submitted_at: float
    done: int = 0


class WordEngine:
    """``generation.types.Engine`` without a model: every step adds one word to every answer."""

    def __init__(self, step_s: float = 0.0, capacity: int = 64, name: str = "words") -> None:
        self._step_s = step_s
        self._live: dict[str, _Sequence] = {}
        self._info = EngineInfo(name, "words", "cpu", "none", capacity, 4096)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def busy(self) -> bool:
        return bool(self._live)

    def submit(self, request: EngineRequest) -> None:
        prompt = request.messages[-1].content
        orders = orders_of(prompt)
        tokens = int(orders.get("tokens", request.sampling.max_new_tokens))
        if "say" in orders:
            tokens = -(-len(orders["say"]) // PIECE)
        self._live[request.request_id] = _Sequence(request, prompt, orders, tokens, time.monotonic())

    def cancel(self, request_id: str) -> None:
        self._live.pop(request_id, None)

    def step(self) -> list[EngineEvent]:
        started = time.monotonic()
        pause_s = max([self._step_s, *(float(each.orders.get("step_s", 0)) for each in self._live.values())])
        if pause_s:
            time.sleep(pause_s)
        events: list[EngineEvent] = []
        share_s = (time.monotonic() - started) / max(1, len(self._live))
        for sequence in list(self._live.values()):
            events += self._advance(sequence, share_s)
        return events

    def close(self) -> None:
        self._live.clear()

    def _advance(self, sequence: _Sequence, share_s: float) -> list[EngineEvent]:
        orders, request_id = sequence.orders, sequence.request.request_id
        if orders.get("kill") == sequence.done:
            os.kill(os.getpid(), signal.SIGKILL)
        if orders.get("hang") == sequence.done:
            time.sleep(3600)
        if orders.get("stall") == sequence.done:
            return []
        if orders.get("fail") == sequence.done:
            raise RuntimeError("the prompt must not be seen in a log: " + sequence.prompt)
        if "refuse" in orders or "flaky" in orders:
            del self._live[request_id]
            return [Failed(request_id, str(orders.get("refuse", "busy")), "It did not work.", "flaky" in orders)]
        events: list[EngineEvent] = []
        if sequence.done < sequence.tokens:
            said, at = orders.get("say"), sequence.done * PIECE
            piece = word(sequence.prompt, sequence.done) if said is None else said[at : at + PIECE]
            events.append(Delta(request_id, piece))
            sequence.done += 1
        deadline_s = sequence.request.deadline_s
        late = deadline_s is not None and time.monotonic() - sequence.submitted_at > deadline_s
        if late or sequence.done >= sequence.tokens:
            del self._live[request_id]
            events.append(self._finished(sequence, "deadline" if late else "stop", share_s))
        return events

    def _finished(self, sequence: _Sequence, reason: FinishReason, share_s: float) -> Finished:
        usage = Usage(
            prompt_tokens=len(sequence.prompt.split()),
            completion_tokens=sequence.done,
            duration_s=time.monotonic() - sequence.submitted_at,
            gpu_s=share_s * max(1, sequence.done),
        )
        return Finished(sequence.request.request_id, reason, usage)


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> WordEngine:
    """The factory: ``tests.engines:build``."""
    progress("loading words", 0.5)
    if options.get("missing"):
        raise ModelNotFoundError("No model is called 'missing'. `palaver models list` shows what there is.")
    if options.get("crash_at_start"):
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(float(str(options.get("load_s", 0))))
    return WordEngine(float(str(options.get("step_s", 0))), int(str(options.get("capacity", 64))))


def build_moderated(options: dict[str, object], progress: Callable[[str, float | None], None]) -> Engine[Any]:
    """The factory with moderation around it, as its option ``moderation`` says: ``tests.engines:build_moderated``."""
    return moderated(build, options, progress)
