"""A chat engine that answers its users and, in the same steps, questions of moderation's own."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import replace

from generation.errors import ModelError, ModerationUnavailableError
from generation.types import (
    ChatRequest,
    Delta,
    Engine,
    EngineEvent,
    EngineInfo,
    Failed,
    Finished,
    Message,
    Sampling,
)

#: So many of the engine's slots are kept for questions, or half of them where it has few.
_QUESTION_SLOTS = 4
_LONGEST_S = 60.0


class SharedEngine:
    """Wraps an engine; see ``generation.types.Engine``. While it is asked, its users' answers go on growing.

    What users' requests bring meanwhile is handed out by the next ``step``. Some slots are kept free of users, so that
    a question never waits for somebody's long answer.

    Args:
        inner: The engine; it must be able to compute two answers at once.

    Raises:
        ModelError: It cannot.
    """

    def __init__(self, inner: Engine[ChatRequest]) -> None:
        self._inner = inner
        self._slots = min(_QUESTION_SLOTS, inner.info.capacity // 2)
        if self._slots < 1:
            raise ModelError(
                "The chat model can only judge texts where it computes two answers at once: set chat.slots."
            )
        self._backlog: list[EngineEvent] = []
        self._numbers = itertools.count()

    @property
    def info(self) -> EngineInfo:
        """What runs here, with the capacity that is left to users."""
        info = self._inner.info
        return replace(info, capacity=info.capacity - self._slots)

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work."""
        return bool(self._backlog) or self._inner.busy

    def submit(self, request: ChatRequest) -> None:
        """Take a user's request."""
        self._inner.submit(request)

    def cancel(self, request_id: str) -> None:
        """Forget a user's request."""
        self._inner.cancel(request_id)
        self._backlog = [event for event in self._backlog if event.request_id != request_id]

    def step(self) -> list[EngineEvent]:
        """Run a step; what came while questions were answered comes first."""
        backlog, self._backlog = self._backlog, []
        return [*backlog, *(self._inner.step() if self._inner.busy else [])]

    def close(self) -> None:
        """Release what is held; idempotent."""
        self._backlog.clear()
        self._inner.close()

    def answers(self, questions: Sequence[tuple[Message, ...]], max_new_tokens: int) -> list[str]:
        """Ask the model, greedily, in batches beside its users' requests.

        Args:
            questions: Conversations.
            max_new_tokens: Longest answer.

        Raises:
            ModerationUnavailableError: An answer failed, or did not come in a minute.
        """
        told: list[str] = []
        for start in range(0, len(questions), self._slots):
            told += self._batch(questions[start : start + self._slots], max_new_tokens)
        return told

    def _batch(self, questions: Sequence[tuple[Message, ...]], max_new_tokens: int) -> list[str]:
        sampling = Sampling(max_new_tokens=max_new_tokens, temperature=0.0)
        texts: dict[str, str] = {}
        for messages in questions:
            name = f"judge:{next(self._numbers)}"
            texts[name] = ""
            self._inner.submit(ChatRequest(name, messages, sampling))
        waiting, until_s = set(texts), time.monotonic() + _LONGEST_S
        try:
            while waiting:
                if time.monotonic() > until_s:
                    raise ModerationUnavailableError("The chat model did not judge a text in time.")
                self._take(self._inner.step(), texts, waiting)
        finally:
            for name in waiting:
                self._inner.cancel(name)
        return list(texts.values())

    def _take(self, events: Sequence[EngineEvent], texts: dict[str, str], waiting: set[str]) -> None:
        for event in events:
            if event.request_id not in texts:
                self._backlog.append(event)
            elif isinstance(event, Delta):
                texts[event.request_id] += event.text
            elif isinstance(event, Finished):
                waiting.discard(event.request_id)
            elif isinstance(event, Failed):
                waiting.discard(event.request_id)
                raise ModerationUnavailableError("The chat model could not judge a text.")
