"""The engine of answers: finds the passage that answers a question and quotes it.

No model writes: what is shown is what the documents say, trimmed to the sentences that bear on the question, so that
every statement is supported by the passage it cites; what should not be is left out. A small chat model that only
connected passages would add sentences that nothing supports, and its answers would have to be checked against the
passages again.
"""

from __future__ import annotations

import time
from collections import deque

from generation.answers import wording
from generation.errors import GenerationError
from generation.retrieval.answering import answer
from generation.retrieval.knowledge import Knowledge
from generation.types import (
    AnswerRequest,
    Delta,
    EngineEvent,
    EngineInfo,
    Failed,
    Finished,
    Grounds,
    Usage,
)

#: Questions that are taken at once; each takes some milliseconds, so that a longer batch would only wait here.
CAPACITY = 16


class AnswerEngine:
    """Answers one question a step; see ``generation.types.Engine``.

    Args:
        knowledge: The store and its embedding model.
        model: Name of that model.
    """

    def __init__(self, knowledge: Knowledge, model: str) -> None:
        self._knowledge = knowledge
        self._model = model
        self._waiting: deque[tuple[AnswerRequest, float]] = deque()

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return EngineInfo(self._model, "retrieval", "cpu", "float32", CAPACITY, 0)

    @property
    def busy(self) -> bool:
        """Whether a question waits."""
        return bool(self._waiting)

    def submit(self, request: AnswerRequest) -> None:
        """Take a question."""
        self._waiting.append((request, time.monotonic()))

    def cancel(self, request_id: str) -> None:
        """Forget a question."""
        self._waiting = deque(entry for entry in self._waiting if entry[0].request_id != request_id)

    def step(self) -> list[EngineEvent]:
        """Answer the question that has waited longest."""
        if not self._waiting:
            return []
        request, asked_s = self._waiting.popleft()
        begun_s = time.monotonic()
        try:
            events = self._asked(request) if request.task == "ask" else self._taught(request)
        except GenerationError as error:
            return [Failed(request.request_id, error.code, str(error), error.retryable)]
        now_s = time.monotonic()
        usage = Usage(ttft_s=now_s - asked_s, duration_s=now_s - asked_s, gpu_s=now_s - begun_s)
        return [*events, Finished(request.request_id, "stop", usage)]

    def close(self) -> None:
        """Close the store; idempotent."""
        self._waiting.clear()
        self._knowledge.close()

    def _asked(self, request: AnswerRequest) -> list[EngineEvent]:
        found = answer(request.question, self._knowledge.tenant(_tenant(request)), request.conversation)
        match found.decision:
            case "answer" | "ask":
                text = found.text
            case "did_you_mean":
                text = wording.did_you_mean(request.question, found.suggestions)
            case _:
                text = wording.unknown(request.question)
        grounds = Grounds(request.request_id, found.decision, found.score, found.citations, found.suggestions)
        return [Delta(request.request_id, text), grounds]

    def _taught(self, request: AnswerRequest) -> list[EngineEvent]:
        """Add or remove an approved pair: here the model is loaded already, so that the next question finds it."""
        knowledge = self._knowledge.tenant(_tenant(request))
        if request.task == "learn":
            knowledge.add_pair(request.question, request.answer, request.approved_by, request.pair_id)
        else:
            knowledge.remove_pair(request.pair_id)
        return [Delta(request.request_id, wording.learnt(request.task))]


def _tenant(request: AnswerRequest) -> str:
    """Whose knowledge: told by the worker, which has it from the job; a request cannot name another."""
    if request.origin is None:
        raise ValueError("An answer needs to know whose question it is.")
    return request.origin.tenant
