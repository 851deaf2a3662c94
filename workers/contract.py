"""What crosses Redis: frozen, versioned models, JSON only.

A ``Request`` travels from a front-end to a worker as the arguments of an rq job; an ``Event`` travels back on the
front-end's stream. Whoever reads one refuses what it does not understand with ``ContractError`` and leaves the
payload where it can be inspected; nothing is guessed and nothing is imported by name.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, StringConstraints, Tag, ValidationError

from generation.moderation.policy import EffectivePolicy
from workers.errors import ContractError, NewerContractError

CONTRACT_VERSION: Final = 1

_M = TypeVar("_M", "Request", "Event")

#: rq accepts ``[A-Za-z0-9_-]`` in job ids; ``__`` separates the tenant from the key, so neither part may contain it.
_ID = re.compile(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*")
Identifier = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=f"^{_ID.pattern}$")]
FrontEnd = Annotated[str, StringConstraints(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9._-]+$")]

#: Names one stored picture, of a result or to begin from.
ArtifactId = Annotated[str, StringConstraints(min_length=1, max_length=120, pattern=r"^[A-Za-z0-9_-]+$")]

#: As operators name it in their settings: a name, a hub id or a directory.
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]

#: Source: W3C Trace Context, Recommendation of 23 November 2021, section 3.2, of its version 00.
TraceParent = Annotated[str, StringConstraints(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]

Kind = Literal["chat", "image", "answer"]
EventType = Literal["started", "progress", "retrying", "finished", "failed", "refused", "cancelled"]
TERMINAL_EVENTS: frozenset[EventType] = frozenset({"finished", "failed", "refused", "cancelled"})


_FIELD = re.compile(r"[a-z0-9_]{1,40}")


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ChatMessage(_Frozen):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str = Field(max_length=200_000)


class ChatOptions(_Frozen):
    """How an answer is sampled; ranges and meaning are those of ``generation.types.Sampling``."""

    max_new_tokens: int = Field(default=512, ge=1, le=1_000_000)
    temperature: float = Field(default=0.7, ge=0, le=2)
    top_p: float = Field(default=0.95, gt=0, le=1)
    top_k: int = Field(default=0, ge=0, le=1_000_000)
    min_p: float = Field(default=0.0, ge=0, lt=1)
    repetition_penalty: float = Field(default=1.0, ge=1, le=2)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    stop: tuple[Annotated[str, StringConstraints(min_length=1, max_length=200)], ...] = Field(default=(), max_length=8)


class ChatBody(_Frozen):
    """What a chat job carries.

    Attributes:
        adapter: Whether the tenant's adapter takes part, where it has one; False for what is no conversation of its
            own. Left out where it is True, so that workers of older releases, which have no adapters, take such jobs.
    """

    kind: Literal["chat"] = "chat"
    messages: tuple[ChatMessage, ...] = Field(min_length=1, max_length=2_000)
    options: ChatOptions = ChatOptions()
    adapter: bool = True


class ImageOptions(_Frozen):
    """How pictures are drawn; ranges and meaning are those of ``generation.types.ImageSampling``."""

    n: int = Field(default=1, ge=1, le=8)
    aspect_ratio: str = Field(
        default="1:1", max_length=20, pattern=r"^[0-9]{1,4}(\.[0-9]{1,4})?:[0-9]{1,4}(\.[0-9]{1,4})?$"
    )
    width_px: int = Field(default=0, ge=0, le=8192)
    height_px: int = Field(default=0, ge=0, le=8192)
    num_inference_steps: int = Field(default=0, ge=0, le=200)
    guidance_scale: float | None = Field(default=None, ge=0, le=30)
    sampler: str | None = Field(default=None, max_length=40)
    seed: int | None = Field(default=None, ge=0, lt=2**63)
    strength: float = Field(default=0.7, ge=0.01, le=1)
    variation_seed: int | None = Field(default=None, ge=0, lt=2**63)
    variation_strength: float = Field(default=0.0, ge=0, le=1)
    style: str | None = Field(default=None, max_length=80)
    upscale: Literal[1, 2, 4] = 1
    preview_every_steps: int = Field(default=3, ge=0, le=200)


class ImageBody(_Frozen):
    """What an image job carries; pictures to begin from are named, and lie in the artifact store.

    Attributes:
        task: ``generate`` draws; ``upscale`` enlarges ``init_image``.
    """

    kind: Literal["image"]  # no default: it is what tells an image job from a chat job
    task: Literal["generate", "upscale"] = "generate"
    prompt: str = Field(default="", max_length=10_000)
    negative_prompt: str = Field(default="", max_length=10_000)
    options: ImageOptions = ImageOptions()
    init_image: ArtifactId | None = None
    mask_image: ArtifactId | None = None


class AnswerBody(_Frozen):
    """What an answer job carries: a question to what the tenant knows, or an approved pair to be known from now on.

    Attributes:
        task: ``ask`` answers; ``learn`` adds or replaces the pair ``pair_id``, ``unlearn`` removes it.
        question: What was asked, or the pair's question.
        conversation: What the same person asked before in this conversation, oldest first.
        answer: The pair's answer.
        approved_by: Who approved the pair.
    """

    kind: Literal["answer"]  # no default, as above
    task: Literal["ask", "learn", "unlearn"] = "ask"
    question: str = Field(default="", max_length=10_000)
    conversation: tuple[Annotated[str, StringConstraints(max_length=10_000)], ...] = Field(default=(), max_length=20)
    answer: str = Field(default="", max_length=20_000)
    approved_by: str = Field(default="", max_length=200)
    pair_id: str = Field(default="", max_length=80)


def _body_kind(body: Any) -> str:
    """What tells one body from another; chat bodies may leave it out."""
    return str(body.get("kind", "chat") if isinstance(body, dict) else getattr(body, "kind", "chat"))


Body = Annotated[
    Annotated[ChatBody, Tag("chat")] | Annotated[ImageBody, Tag("image")] | Annotated[AnswerBody, Tag("answer")],
    Discriminator(_body_kind),
]


class ReplyTo(_Frozen):
    """Where the answer goes: the front-end's stream, and whatever that front-end needs to find the place again.

    Attributes:
        trace: Where the job's trace begins, as W3C's ``traceparent``; None, and left out, where nothing is traced.
    """

    front_end: FrontEnd
    handle: dict[str, str] = Field(default_factory=dict, max_length=32)
    trace: TraceParent | None = None


class Quota(_Frozen):
    """What one request is held to in place of the general limits: its tenant's own wishes, its user's tier.

    Attributes:
        user_per_minute: The user's requests a minute of this kind, on average; None for the general rate.
        user_burst: How many at once.
        own_per_minute: A further limit of the tenant's own, over all kinds together; None for none.
        tenant_day_gpu_s: Budgets in GPU-seconds; 0 for none.
    """

    user_per_minute: float | None = Field(default=None, gt=0)
    user_burst: int = Field(default=1, ge=1)
    own_per_minute: float | None = Field(default=None, gt=0)
    tenant_day_gpu_s: float = Field(default=0.0, ge=0)
    tenant_month_gpu_s: float = Field(default=0.0, ge=0)
    user_day_gpu_s: float = Field(default=0.0, ge=0)
    user_month_gpu_s: float = Field(default=0.0, ge=0)


class Request(_Frozen):
    """One prompt on its way to a worker.

    Attributes:
        tenant: Guild or workspace, prefixed by its platform (``discord-1234``): the unit of fairness.
        idempotency_key: The same key never makes two jobs; derived from the platform's own event id.
        cost_gpu_s: Estimated cost in GPU-seconds, replaced by the measured one when the job ends.
        timeout_s: Longest run of one attempt.
        created_at_s: Unix time at which the prompt was accepted.
        policy: How the tenant wants it moderated, at that place and for that user; None for the operator's default.
        model: Which model of its kind must answer; None for whichever the operator runs for prompts that name none.
        quota: Limits and budgets of its own; None for the operator's general ones.
    """

    v: Literal[1] = CONTRACT_VERSION
    platform: Identifier
    tenant: Identifier
    channel: Identifier
    user: Identifier
    idempotency_key: Identifier
    reply: ReplyTo
    body: Body
    cost_gpu_s: float = Field(default=1.0, gt=0, le=86_400)
    timeout_s: float = Field(default=300.0, gt=0, le=86_400)
    created_at_s: float = Field(ge=0)
    policy: EffectivePolicy | None = None
    model: ModelName | None = None
    quota: Quota | None = None

    @property
    def job_id(self) -> str:
        """``{tenant}__{key}``: the queue reads the tenant off the id, and the key makes it idempotent."""
        return f"{self.tenant}__{self.idempotency_key}"

    @property
    def kind(self) -> Kind:
        """Which engine runs it."""
        return self.body.kind


class UsageReport(_Frozen):
    """What a job took; fields and units are those of ``generation.types.Usage``, plus the wait in the queue.

    Attributes:
        model: Which model did it, as people may name it; None where the worker's has no name.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    image_steps: int = 0
    dropped_messages: int = 0
    queued_s: float = 0.0
    ttft_s: float = 0.0
    duration_s: float = 0.0
    gpu_s: float = 0.0
    model: str | None = None


class ArtifactRef(_Frozen):
    """One picture of a result; its bytes lie in the artifact store until the result expires.

    Attributes:
        covered: Moderation wants it shown behind a cover that a reader lifts: a spoiler.
    """

    artifact_id: ArtifactId
    media_type: Literal["image/png", "image/jpeg", "image/webp"]
    width_px: int = Field(ge=1)
    height_px: int = Field(ge=1)
    size_bytes: int = Field(ge=1)
    seed: int = Field(ge=0)
    covered: bool = False


class CitationRef(_Frozen):
    """Where a statement of an answer comes from; fields are those of ``generation.retrieval.types.Citation``."""

    number: int = Field(ge=1)
    chunk_id: str
    document_id: str
    title: str
    heading_path: tuple[str, ...] = ()
    anchor: str | None = None
    address: str | None = None
    quote: str = ""
    page: int | None = None


class AnswerReport(_Frozen):
    """What an answer stands on.

    Attributes:
        decision: ``answer``, ``ask`` for what an answer needs, ``did_you_mean`` or ``unknown``.
        score: 0 to 1: how probable it is that the best passage answers the question.
        citations: One for each mark in the text.
        suggestions: What may have been meant.
    """

    decision: Literal["answer", "ask", "did_you_mean", "unknown"]
    score: float = Field(ge=0, le=1)
    citations: tuple[CitationRef, ...] = Field(default=(), max_length=20)
    suggestions: tuple[str, ...] = Field(default=(), max_length=20)


class Failure(_Frozen):
    """Why a job ended without an answer, in words for the user."""

    code: str = Field(max_length=80)
    message: str = Field(max_length=2_000)
    retry_after_s: float | None = None


class Event(_Frozen):
    """One step in a job's life, as its front-end sees it. Exactly one terminal event ends each job.

    Attributes:
        execution_id: Which attempt; its text lies under ``keys.text(execution_id)``.
        attempt: 1 for the first run.
        text_bytes: Length of the UTF-8 text at this moment; on ``finished`` the length of the whole answer.
        images: On ``finished``, the pictures.
        answer: On ``finished``, what an answer from knowledge stands on.
    """

    v: Literal[1] = CONTRACT_VERSION
    type: EventType
    job_id: str = Field(min_length=1, max_length=200)
    reply: ReplyTo
    at_s: float = Field(ge=0)
    execution_id: str | None = None
    attempt: int = Field(default=1, ge=1)
    text_bytes: int = Field(default=0, ge=0)
    images: tuple[ArtifactRef, ...] = Field(default=(), max_length=8)
    answer: AnswerReport | None = None
    finish_reason: Literal["stop", "length", "deadline"] | None = None
    usage: UsageReport | None = None
    failure: Failure | None = None

    @property
    def terminal(self) -> bool:
        """Whether this ends the job."""
        return self.type in TERMINAL_EVENTS


def tenant_of(job_id: str) -> str:
    """The tenant that a job id names, or ``-`` for ids that this product did not make."""
    tenant, separator, _ = job_id.partition("__")
    return tenant if separator else "-"


def encode(model: Request | Event) -> str:
    """JSON with every default left out, so that payloads stay small."""
    rest = model.model_dump_json(exclude_defaults=True)  # never empty: both models have fields without a default
    return f'{{"v":{model.v},{rest[1:]}'


def decode_request(raw: str | bytes | dict[str, Any]) -> Request:
    """Read a request.

    Raises:
        NewerContractError: It is of a newer release.
        ContractError: It is not JSON, of an unknown version, or malformed.
    """
    return _decode(Request, raw)


def decode_event(raw: str | bytes | dict[str, Any]) -> Event:
    """Read an event.

    Raises:
        ContractError: It is not JSON, of an unknown version, or malformed.
    """
    return _decode(Event, raw)


def _decode(model: type[_M], raw: str | bytes | dict[str, Any]) -> _M:
    name = model.__name__.lower()
    try:
        data = json.loads(raw) if isinstance(raw, str | bytes) else raw
    except (ValueError, RecursionError):
        raise ContractError(f"The {name} is not JSON.") from None
    if not isinstance(data, dict):
        raise ContractError(f"The {name} is not a JSON object.")
    version = data.get("v")
    if version != CONTRACT_VERSION or version is True:  # JSON's true would pass for the number 1
        newer = isinstance(version, int) and version is not True and version > CONTRACT_VERSION
        raise (NewerContractError if newer else ContractError)(
            f"The {name} has contract version {str(version)[:20]!r}; this process speaks {CONTRACT_VERSION}. "
            "Bring bots and workers to the same release."
        )
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise ContractError(f"The {name} is malformed: {_places(error)}.") from None


def _places(error: ValidationError) -> str:
    """Which fields are wrong and why, without values or foreign names: payloads carry prompts."""
    faults = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(f"{_place(fault['loc'])}: {fault['type']}" for fault in faults[:5])


def _place(path: tuple[int | str, ...]) -> str:
    parts = [str(part) if _FIELD.fullmatch(str(part)) else "?" for part in path]
    return ".".join(parts) or "object"
