"""What goes into an engine and what comes out of it.

An engine is driven by one loop: ``submit`` and ``cancel`` between two steps, ``step`` runs one forward pass for
everything in flight and returns what happened. It knows no queue and no chat platform.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

from generation.errors import InvalidRequestError

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "deadline"]


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen; each request of a batch has its own.

    Args:
        max_new_tokens: Longest answer, at least 1.
        temperature: 0 is greedy; otherwise the logits are divided by it. At most 2.
        top_p: Nucleus size in (0, 1] (Holtzman et al., "The Curious Case of Neural Text Degeneration", 2020).
        top_k: Number of candidates, 0 for all.
        min_p: Smallest share of the best token's probability, in [0, 1) (Nguyen et al., "Min-p Sampling", 2024).
        repetition_penalty: Divides positive and multiplies negative logits of seen tokens, in [1, 2]
            (Keskar et al., "CTRL", 2019).
        seed: Makes sampled output reproducible whatever else is in the batch; None draws a fresh one.
        stop: At most 8 strings that end the answer; they never appear in it.

    Raises:
        InvalidRequestError: A value is outside its range.
    """

    max_new_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 0.95
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("max_new_tokens", self.max_new_tokens, 1, 1_000_000),
            ("temperature", self.temperature, 0.0, 2.0),
            ("top_p", self.top_p, 1e-6, 1.0),
            ("top_k", self.top_k, 0, 1_000_000),
            ("min_p", self.min_p, 0.0, 0.999_999),
            ("repetition_penalty", self.repetition_penalty, 1.0, 2.0),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:  # also refuses NaN
                raise InvalidRequestError(f"{name} must be between {low:g} and {high:g}, not {value:g}.")
        if len(self.stop) > 8 or any(not text for text in self.stop):
            raise InvalidRequestError("stop takes at most 8 strings, none of them empty.")


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer to generate.

    Args:
        request_id: Unique among the requests in flight.
        messages: The conversation, oldest first: at most one system message, which comes first; the last is the user's.
        sampling: How tokens are chosen.
        deadline_s: Seconds from ``submit`` after which the answer ends as it is, with reason ``deadline``.
    """

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    deadline_s: float | None = None


EngineRequest = ChatRequest


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request took.

    Args:
        prompt_tokens: Tokens of the prompt as the model saw it.
        cached_tokens: Of those, tokens that the prefix cache supplied.
        completion_tokens: Tokens generated.
        dropped_messages: Oldest turns left out so that the conversation fits the context.
        ttft_s: Seconds from ``submit`` to the first token.
        duration_s: Seconds from ``submit`` to the end.
        gpu_s: This request's share of the seconds the device computed: every step's time is split over its rows.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    dropped_messages: int = 0
    ttft_s: float = 0.0
    duration_s: float = 0.0
    gpu_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Delta:
    """New text of an answer: whole characters, never part of a stop string."""

    request_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete: it is the concatenation of its deltas."""

    request_id: str
    finish_reason: FinishReason
    usage: Usage


@dataclass(frozen=True, slots=True)
class Failed:
    """The request ended without a complete answer.

    Args:
        request_id: Whose end this is.
        code: A ``GenerationError.code``.
        message: For the user: what happened and what to do; no internals.
        retryable: Whether trying again may help.
    """

    request_id: str
    code: str
    message: str
    retryable: bool = False


EngineEvent = Delta | Finished | Failed


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine runs, for status pages and logs."""

    model: str
    backend: str
    device: str
    dtype: str
    capacity: int
    context_tokens: int


class Engine(Protocol):
    """What a worker drives. One thread calls it; no method blocks except ``step``.

    After ``submit`` exactly one ``Finished`` or ``Failed`` follows from ``step``, unless ``cancel`` came first:
    then nothing more is reported of that request, and its slot is free at the next step.
    """

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        ...

    @property
    def busy(self) -> bool:
        """Whether any request is in flight, so that ``step`` has work."""
        ...

    def submit(self, request: EngineRequest) -> None:
        """Take a request into the batch at the next step; bad requests end as ``Failed`` events, not exceptions."""
        ...

    def cancel(self, request_id: str) -> None:
        """Forget a request; unknown ids are ignored."""
        ...

    def step(self) -> list[EngineEvent]:
        """Run one step for everything in flight; returns at once when nothing is."""
        ...

    def close(self) -> None:
        """Release the device and all threads; idempotent."""
        ...
