"""Questions of moderation's own to a chat engine: asked together, answered beside whatever else the engine computes."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from generation.errors import ModelError, ModerationUnavailableError
from generation.types import ChatRequest, Delta, Engine, EngineEvent, Failed, Finished, Message, Sampling

_LONGEST_S = 60.0
#: Every question's request id begins with this.
PREFIX = "question:"


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked, greedily.

    Args:
        messages: A conversation that ends with the user.
        max_new_tokens: Longest answer.
        template_arguments: See ``ChatRequest``.
        score_tokens: See ``ChatRequest``.
    """

    messages: tuple[Message, ...]
    max_new_tokens: int
    template_arguments: Mapping[str, object] = field(default_factory=dict)
    score_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What it said.

    Args:
        text: The answer.
        scores: For each token of it, how probable each of the question's ``score_tokens`` was in its place.
    """

    text: str
    scores: tuple[tuple[float, ...], ...] = ()


@runtime_checkable
class _TellsTokens(Protocol):
    """An engine that runs the model itself."""

    def first_token(self, text: str) -> int:
        """The token that a text begins with."""
        ...


class Questions:
    """Asks an engine.

    Args:
        engine: A chat engine.
        slots: Most questions at once.
        meanwhile: Called after each step of the engine: what else has to go on.
        others: Told what the engine reports of other requests.
    """

    def __init__(
        self,
        engine: Engine[ChatRequest],
        slots: int,
        meanwhile: Callable[[], None] = lambda: None,
        others: Callable[[EngineEvent], None] = lambda _: None,
    ) -> None:
        self._engine = engine
        self._slots = slots
        self._meanwhile = meanwhile
        self._others = others
        self._numbers = itertools.count()

    @property
    def model(self) -> str:
        """Whom is asked."""
        return self._engine.info.model

    def first_token(self, text: str) -> int:
        """The token that an answer begins with if it begins with this text.

        Raises:
            ModelError: The model is not run by this process, so that nobody knows its tokens.
        """
        if not isinstance(self._engine, _TellsTokens):
            raise ModelError(f"{self.model} runs elsewhere; a guard model has to run in the worker itself.")
        return self._engine.first_token(text)

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Ask, and step the engine until everything is answered.

        Raises:
            ModerationUnavailableError: An answer failed, or did not come in a minute.
        """
        answers: list[Answer] = []
        for start in range(0, len(questions), self._slots):
            answers += self._together(questions[start : start + self._slots])
        return answers

    def _together(self, questions: Sequence[Question]) -> list[Answer]:
        texts = {f"{PREFIX}{next(self._numbers)}": "" for _ in questions}
        for name, question in zip(texts, questions, strict=True):
            sampling = Sampling(max_new_tokens=question.max_new_tokens, temperature=0.0)
            self._engine.submit(
                ChatRequest(
                    name,
                    question.messages,
                    sampling,
                    template_arguments=question.template_arguments,
                    score_tokens=question.score_tokens,
                )
            )
        done: dict[str, Answer] = {}
        until_s = time.monotonic() + _LONGEST_S
        try:
            while len(done) < len(texts):
                if time.monotonic() > until_s:
                    raise ModerationUnavailableError(f"{self.model} did not judge a text in time.")
                for event in self._engine.step():
                    self._take(event, texts, done)
                self._meanwhile()
        finally:
            for name in texts.keys() - done.keys():
                self._engine.cancel(name)
        return [done[name] for name in texts]

    def _take(self, event: EngineEvent, texts: dict[str, str], done: dict[str, Answer]) -> None:
        name = event.request_id
        if name not in texts:
            self._others(event)
        elif isinstance(event, Delta):
            texts[name] += event.text
        elif isinstance(event, Finished):
            done[name] = Answer(texts[name], event.scores)
        elif isinstance(event, Failed):
            raise ModerationUnavailableError(f"{self.model} could not judge a text ({event.code}).")
