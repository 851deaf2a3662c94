"""An engine whose users' answers go on growing while moderation asks a question, of this engine or of another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from generation.errors import ModelError
from generation.moderation.questions import Questions
from generation.types import Engine, EngineEvent, EngineInfo, EngineRequest

#: So many of the engine's slots are kept for questions to itself, or half of them where it has few.
_QUESTION_SLOTS = 4


class SharedEngine:
    """Wraps an engine; see ``generation.types.Engine``.

    What users' requests bring while a question is asked is handed out by the next ``step``.

    Args:
        inner: The engine.
        answers_questions: Whether it is asked itself: then some slots are kept free of users, so that a question never
            waits for somebody's long answer.

    Raises:
        ModelError: It is to be asked, and cannot compute two answers at once.
    """

    def __init__(self, inner: Engine[Any], *, answers_questions: bool = False) -> None:
        self._inner = inner
        self._slots = min(_QUESTION_SLOTS, inner.info.capacity // 2) if answers_questions else 0
        if answers_questions and self._slots < 1:
            raise ModelError(
                "The chat model can only judge texts where it computes two answers at once: set chat.slots."
            )
        self._backlog: list[EngineEvent] = []
        self._broken: Exception | None = None

    @property
    def info(self) -> EngineInfo:
        """What runs here, with the capacity that is left to users."""
        info = self._inner.info
        return replace(info, capacity=info.capacity - self._slots)

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work."""
        return bool(self._backlog) or self._broken is not None or self._inner.busy

    def submit(self, request: EngineRequest) -> None:
        """Take a user's request."""
        self._inner.submit(request)

    def cancel(self, request_id: str) -> None:
        """Forget a user's request."""
        self._inner.cancel(request_id)
        self._backlog = [event for event in self._backlog if event.request_id != request_id]

    def step(self) -> list[EngineEvent]:
        """Run a step; what came while questions were answered comes first."""
        if self._broken is not None:
            raise self._broken
        backlog, self._backlog = self._backlog, []
        return [*backlog, *(self._inner.step() if self._inner.busy else [])]

    def close(self) -> None:
        """Release what is held; idempotent."""
        self._backlog.clear()
        self._inner.close()

    def questions(self) -> Questions:
        """Whoever asks this engine itself: in the same steps that serve its users."""
        return Questions(self._inner, self._slots, others=self._keep)

    def go_on(self) -> None:
        """Run a step for users while another engine is asked. What it raises is raised by the next ``step``.

        Otherwise a broken engine would pass for a broken guard.
        """
        if self._broken is not None or not self._inner.busy:
            return
        try:
            self._backlog += self._inner.step()
        except Exception as error:  # noqa: BLE001 - any; raised again by step
            self._broken = error

    def _keep(self, event: EngineEvent) -> None:
        self._backlog.append(event)
