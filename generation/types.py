"""What goes into an engine and what comes out of it.

An engine is driven by one loop: ``submit`` and ``cancel`` between two steps, ``step`` runs one forward pass for
everything in flight and returns what happened. It knows no queue and no chat platform.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar, runtime_checkable

from generation.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from generation.moderation.policy import EffectivePolicy
    from generation.retrieval.types import Citation

Role = Literal["system", "user", "assistant"]
FinishReason = Literal["stop", "length", "deadline"]
ImageTask = Literal["generate", "upscale"]
AnswerTask = Literal["ask", "learn", "unlearn"]
Decision = Literal["answer", "ask", "did_you_mean", "unknown"]

#: Most pictures of one request.
MAX_IMAGES = 8
#: Most denoising steps of one request.
MAX_STEPS = 200


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
class Origin:
    """Whose request it is and what is allowed there; engines that do not moderate have no use for it.

    Args:
        job_id: Of the job.
        tenant: Guild or workspace.
        user: Who asked.
        policy: The tenant's policy at that place; None for the operator's default.
    """

    job_id: str
    tenant: str
    user: str
    policy: EffectivePolicy | None = None


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One answer to generate.

    Args:
        request_id: Unique among the requests in flight.
        messages: The conversation, oldest first: at most one system message, which comes first; the last is the user's.
        sampling: How tokens are chosen.
        deadline_s: Seconds from ``submit`` after which the answer ends as it is, with reason ``deadline``.
        origin: Whose it is.
        adapter: Whether the tenant's adapter takes part, where it has one.
        template_arguments: What the model's chat template takes beside the conversation.
        score_tokens: Token ids whose probabilities are told with the end; an engine that does not run the model itself
            tells none.
    """

    request_id: str
    messages: tuple[Message, ...]
    sampling: Sampling = field(default_factory=Sampling)
    deadline_s: float | None = None
    origin: Origin | None = None
    adapter: bool = True
    template_arguments: Mapping[str, object] = field(default_factory=dict)
    score_tokens: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ImageSampling:
    """How pictures are drawn; each request of a batch has its own.

    Args:
        n: How many pictures, 1 to ``MAX_IMAGES``. Picture ``i`` has the seed ``seed + i``.
        aspect_ratio: Width to height, for example ``16:9``, at about the model's own number of pixels.
        width_px: Exact width, with ``height_px``; 0 leaves the size to the aspect ratio.
        height_px: Exact height.
        num_inference_steps: Denoising steps; 0 takes the model's default. At most ``MAX_STEPS``.
        guidance_scale: Classifier-free guidance, 0 to 30; None takes the model's default
            (Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022).
        sampler: Name of a sampler; None takes the model's own.
        seed: Makes pictures reproducible whatever else is in the batch; None draws a fresh one.
        strength: How much of an initial picture is drawn anew, above 0 to 1.
        variation_seed: Seed of the noise that is blended in, for variations of one picture; None for none. Picture
            ``i`` then has the seed ``seed`` and blends in ``variation_seed + i``.
        variation_strength: Share of that noise, 0 to 1, by spherical interpolation.
        style: Name of one of the model's styles; None leaves it to the prompt.
        upscale: Factor of enlargement afterwards: 1, 2 or 4.
        preview_every_steps: How often a preview is made; 0 for never.

    Raises:
        InvalidRequestError: A value is outside its range.
    """

    n: int = 1
    aspect_ratio: str = "1:1"
    width_px: int = 0
    height_px: int = 0
    num_inference_steps: int = 0
    guidance_scale: float | None = None
    sampler: str | None = None
    seed: int | None = None
    strength: float = 0.7
    variation_seed: int | None = None
    variation_strength: float = 0.0
    style: str | None = None
    upscale: int = 1
    preview_every_steps: int = 3

    def __post_init__(self) -> None:
        ranges: tuple[tuple[str, float, float, float], ...] = (
            ("n", self.n, 1, MAX_IMAGES),
            ("width_px", self.width_px, 0, 8192),
            ("height_px", self.height_px, 0, 8192),
            ("num_inference_steps", self.num_inference_steps, 0, MAX_STEPS),
            ("guidance_scale", self.guidance_scale or 0.0, 0.0, 30.0),
            ("strength", self.strength, 0.01, 1.0),
            ("variation_strength", self.variation_strength, 0.0, 1.0),
            ("preview_every_steps", self.preview_every_steps, 0, MAX_STEPS),
        )
        for name, value, low, high in ranges:
            if not low <= value <= high:  # also refuses NaN
                raise InvalidRequestError(f"{name} must be between {low:g} and {high:g}, not {value:g}.")
        if self.upscale not in (1, 2, 4):
            raise InvalidRequestError(f"upscale must be 1, 2 or 4, not {self.upscale}.")
        if (self.width_px == 0) != (self.height_px == 0):
            raise InvalidRequestError("width_px and height_px are given together or not at all.")
        if not 1 / 4 <= self.aspect <= 4:
            raise InvalidRequestError("aspect_ratio must be between 1:4 and 4:1.")

    @property
    def aspect(self) -> float:
        """Width over height as a number.

        Raises:
            InvalidRequestError: ``aspect_ratio`` is not two numbers with a colon between.
        """
        width, _, height = self.aspect_ratio.partition(":")
        try:
            return float(width) / float(height)
        except (ValueError, ZeroDivisionError):
            raise InvalidRequestError(f"aspect_ratio must look like 16:9, not {self.aspect_ratio[:20]!r}.") from None


@dataclass(frozen=True, slots=True)
class ImageRequest:
    """Some pictures to draw, or one to enlarge.

    Args:
        request_id: Unique among the requests in flight.
        prompt: What they show.
        negative_prompt: What they do not show; empty for nothing in particular.
        sampling: How they are drawn.
        task: ``generate`` draws; ``upscale`` enlarges ``init_image`` and needs no prompt.
        init_image: Encoded picture (PNG, JPEG or WebP) to begin from, or None.
        mask_image: Encoded picture of the same size, white where ``init_image`` is drawn anew, or None for everywhere.
        deadline_s: Seconds from ``submit`` after which the request fails.
        origin: Whose it is.
    """

    request_id: str
    prompt: str
    negative_prompt: str = ""
    sampling: ImageSampling = field(default_factory=ImageSampling)
    task: ImageTask = "generate"
    init_image: bytes | None = None
    mask_image: bytes | None = None
    deadline_s: float | None = None
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class AnswerRequest:
    """A question to what a tenant knows, or an approved pair that the tenant is to know from now on.

    Args:
        request_id: Unique among the requests in flight.
        question: What was asked, or the pair's question.
        conversation: What the same person asked before, oldest first.
        task: ``ask`` answers, ``learn`` adds or replaces the pair ``pair_id``, ``unlearn`` removes it.
        answer: The pair's answer.
        approved_by: Who approved the pair.
        pair_id: Its name, stable.
        deadline_s: Answers come at once; it is kept for the protocol's sake.
        origin: Whose it is: the tenant whose knowledge is searched, and no other's.
    """

    request_id: str
    question: str
    conversation: tuple[str, ...] = ()
    task: AnswerTask = "ask"
    answer: str = ""
    approved_by: str = ""
    pair_id: str = ""
    deadline_s: float | None = None
    origin: Origin | None = None


EngineRequest = ChatRequest | ImageRequest | AnswerRequest


@dataclass(frozen=True, slots=True)
class Usage:
    """What one request took.

    Args:
        prompt_tokens: Tokens of the prompt as the model saw it.
        cached_tokens: Of those, tokens that the prefix cache supplied.
        completion_tokens: Tokens generated.
        image_steps: Denoising steps, summed over pictures.
        dropped_messages: Oldest turns left out so that the conversation fits the context.
        ttft_s: Seconds from ``submit`` to the first token or preview.
        duration_s: Seconds from ``submit`` to the end.
        gpu_s: This request's share of the seconds the device computed: every step's time is split over its rows.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    image_steps: int = 0
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
class Progress:
    """How far a request's pictures are.

    Args:
        request_id: Whose.
        step: Denoising steps done, from 1.
        total_steps: Of all.
        preview: All of the request's pictures as they look now, in one small encoded picture; None between previews.
    """

    request_id: str
    step: int
    total_steps: int
    preview: bytes | None = None


@dataclass(frozen=True, slots=True)
class Picture:
    """One finished picture of a request; ``Finished`` follows after the last.

    Args:
        request_id: Whose.
        index: From 0.
        data: Encoded.
        media_type: ``image/png``, ``image/jpeg`` or ``image/webp``.
        width_px: Width.
        height_px: Height.
        seed: With it, this picture is drawn again by a request for one; of a variation, its ``variation_seed``.
        covered: Moderation wants it shown behind a cover that a reader lifts.
    """

    request_id: str
    index: int
    data: bytes
    media_type: str
    width_px: int
    height_px: int
    seed: int
    covered: bool = False


@dataclass(frozen=True, slots=True)
class Grounds:
    """What an answer stands on; ``Finished`` follows.

    Args:
        request_id: Whose.
        decision: Whether it is an answer, a question back, or the admission that nothing is known.
        score: 0 to 1: how probable it is that the best passage answers the question.
        citations: One for each mark in the text.
        suggestions: What may have been meant.
    """

    request_id: str
    decision: Decision
    score: float
    citations: tuple[Citation, ...] = ()
    suggestions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finished:
    """The answer is complete: it is the concatenation of its deltas, or its pictures.

    Args:
        request_id: Whose.
        finish_reason: Why it ended.
        usage: What it took.
        scores: For each token of the answer, how probable each of the request's ``score_tokens`` was in its place.
    """

    request_id: str
    finish_reason: FinishReason
    usage: Usage
    scores: tuple[tuple[float, ...], ...] = ()


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


EngineEvent = Delta | Progress | Picture | Grounds | Finished | Failed


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What an engine runs, for status pages and logs."""

    model: str
    backend: str
    device: str
    dtype: str
    capacity: int
    context_tokens: int


_Request = TypeVar("_Request", contravariant=True)


class Engine(Protocol[_Request]):
    """What a worker drives, for one kind of request. One thread calls it; no method blocks except ``step``.

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

    def submit(self, request: _Request) -> None:
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


@runtime_checkable
class Judging(Protocol):
    """An engine that moderates, and counts what it did about what it found."""

    def take_verdicts(self) -> Mapping[tuple[str, str], int]:
        """How often each category led to each action, other than letting it be, since this was last asked."""
        ...
