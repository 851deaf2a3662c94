"""The chat engine: continuous batching of everything in flight, a token of each a step."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence as Series
from typing import TYPE_CHECKING

import torch

from generation.chat.adapter_shelf import AdapterShelf, AdapterSource
from generation.chat.detokenizer import Detokenizer
from generation.chat.prefix_cache import PrefixCache
from generation.chat.prompt import fit
from generation.chat.runtime import prepare
from generation.chat.sampling import sample
from generation.chat.scheduler import Scheduler
from generation.chat.sequence import Sequence, StepPlan, new_sequence
from generation.errors import GenerationError, OutOfMemoryError
from generation.provenance.text_watermark import TextWatermark
from generation.torch_devices import is_out_of_memory
from generation.types import (
    ChatRequest,
    Delta,
    EngineEvent,
    EngineInfo,
    Failed,
    Finished,
    FinishReason,
)

if TYPE_CHECKING:
    from generation.chat.adapters import Adapter
    from generation.chat.config import ChatConfig
    from generation.chat.loading import LoadedModel

_LOG = logging.getLogger("palaver.chat.engine")


class ChatEngine:
    """Runs a causal language model for many requests at once; see ``generation.types.Engine``.

    A step is three calls: schedule, run, postprocess. Greedy answers in float32 equal those of the model alone,
    whatever else is in flight; so do sampled ones with a seed.

    Args:
        loaded: The model; its attention is replaced.
        config: Limits.
        adapters: Where tenants' adapters come from; None for the model alone.
    """

    def __init__(self, loaded: LoadedModel, config: ChatConfig, adapters: AdapterSource | None = None) -> None:
        runtime = prepare(loaded, config)
        self._tokenizer = loaded.tokenizer
        self._eos_token_ids = loaded.eos_token_ids
        self._device = loaded.device
        self._forward = runtime.forward
        self._scheduler = Scheduler(runtime.forward, runtime.slots, runtime.budget_tokens, runtime.chunk_tokens)
        key = config.text_watermark_key
        self._watermark = TextWatermark(key, loaded.device) if key else None
        self._prefixes = PrefixCache(runtime.prefix_tokens)
        self._shelf = AdapterShelf(adapters, runtime.forward.bind, config.adapter_memory_bytes) if adapters else None
        self._budget_tokens = runtime.budget_tokens
        self._sequences: dict[str, Sequence] = {}
        self._events: list[EngineEvent] = []
        self._closed = False
        self._info = EngineInfo(
            model=loaded.name,
            backend=runtime.backend,
            device=str(loaded.device),
            dtype=str(loaded.dtype).removeprefix("torch."),
            capacity=runtime.slots,
            context_tokens=runtime.context_tokens,
        )

    @property
    def info(self) -> EngineInfo:
        """What runs here."""
        return self._info

    @property
    def busy(self) -> bool:
        """Whether ``step`` has work."""
        return bool(self._events) or self._scheduler.busy

    def first_token(self, text: str) -> int:
        """The token that a text begins with, for ``ChatRequest.score_tokens``.

        Raises:
            ValueError: The text is empty.
        """
        token_ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        if not token_ids:
            raise ValueError("An empty text begins with no token.")
        return token_ids[0]

    def submit(self, request: ChatRequest) -> None:
        """Take a request; it joins at the next step. What is wrong with it is reported by that step.

        Raises:
            ValueError: A request with this id is in flight.
        """
        if request.request_id in self._sequences:
            raise ValueError(f"A request with the id {request.request_id!r} is in flight already.")
        try:
            sequence = self._accept(request)
        except GenerationError as error:
            self._fail(request.request_id, error)
            return
        self._sequences[request.request_id] = sequence
        self._scheduler.waiting.append(sequence)

    def cancel(self, request_id: str) -> None:
        """Forget a request; its row is free at once."""
        self._events = [event for event in self._events if event.request_id != request_id]
        sequence = self._sequences.pop(request_id, None)
        if sequence is not None:
            self._leave(sequence)

    def step(self) -> list[EngineEvent]:
        """Run one step for everything in flight."""
        self._expire()
        if self._scheduler.busy:
            try:
                with torch.inference_mode():
                    self._advance()
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._shed()
        events, self._events = self._events, []
        return events

    def close(self) -> None:
        """Release what is held; nothing is reported afterwards."""
        if self._closed:
            return
        self._closed = True
        for request_id in list(self._sequences):
            self.cancel(request_id)
        self._prefixes.clear()
        if self._shelf is not None:
            self._shelf.clear()
        self._forward.trim(0, 0)
        self._events.clear()

    def _accept(self, request: ChatRequest) -> Sequence:
        """Tokenise, cut to the context, and refuse what can never fit.

        Raises:
            GenerationError: The request cannot be served.
        """
        context = self._info.context_tokens
        # Whatever length is asked for, at least half of the context belongs to the prompt.
        reserved = min(request.sampling.max_new_tokens, max(1, context // 2))
        prompt = fit(request.messages, self._tokenizer, context - reserved, request.template_arguments)
        room = min(context, self._budget_tokens) - len(prompt.token_ids)
        if room < 1:
            raise OutOfMemoryError(
                f"The conversation needs {len(prompt.token_ids)} tokens and there is memory for "
                f"{self._budget_tokens}. Shorten it or start a new one."
            )
        return new_sequence(
            request.request_id,
            prompt.token_ids,
            request.sampling,
            min(request.sampling.max_new_tokens, room),
            Detokenizer(self._tokenizer, request.sampling.stop),
            request.deadline_s,
            prompt.dropped_messages,
            self._adapter(request),
            request.score_tokens,
        )

    def _adapter(self, request: ChatRequest) -> Adapter | None:
        if self._shelf is None or request.origin is None or not request.adapter:
            return None
        return self._shelf.of(request.origin.tenant)

    def _advance(self) -> None:
        """Schedule, run, postprocess."""
        started_s = time.monotonic()
        self._scheduler.admit()
        active = self._scheduler.active
        self._forward.reserve(len(active), max(sequence.known_tokens for sequence in active))
        self._reuse()
        plan = self._scheduler.plan()
        logits = self._forward.run(plan)
        sampled = plan.sampled
        if self._watermark is not None and sampled:
            logits = self._watermark.apply(logits, sampled)
        scores = {sequence: _scores(logits[row], sequence) for row, sequence in _scored(sampled)}
        tokens = sample(logits, sampled) if sampled else []
        self._scheduler.commit(plan)
        self._remember(plan)
        self._charge(plan, time.monotonic() - started_s)
        for sequence, token in zip(sampled, tokens, strict=True):
            if sequence in scores:
                sequence.scores.append(scores[sequence])
            self._take(sequence, token)

    def _reuse(self) -> None:
        """Give each sequence whose prompt is about to be computed the beginning that is already known."""
        for sequence in self._scheduler.joining:
            if sequence.filled:
                continue
            match = self._prefixes.match(sequence.prompt, len(sequence.prompt) - 1, sequence.scope)
            if match is not None:
                self._forward.restore(sequence.row, match.entry, match.tokens)
                sequence.filled = sequence.cached_tokens = match.tokens

    def _remember(self, plan: StepPlan) -> None:
        """Keep prompts as soon as they are computed, so that those who share a persona find it."""
        for chunk in plan.chunks:
            sequence = chunk.sequence
            if sequence.filled >= len(sequence.prompt):
                self._store(sequence, len(sequence.prompt))

    def _store(self, sequence: Sequence, count: int) -> None:
        tokens = sequence.tokens(0, count)
        if self._prefixes.wants(tokens, sequence.scope):
            try:
                entry = self._forward.capture(sequence.row, count)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._prefixes.clear()  # what is only kept for later goes first
                return
            if entry is not None:
                self._prefixes.store(tokens, entry, sequence.scope)

    def _charge(self, plan: StepPlan, seconds: float) -> None:
        """Split the step's time over its tokens."""
        share_s = seconds / plan.tokens
        for sequence in plan.decode:
            sequence.gpu_s += share_s
        for chunk in plan.chunks:
            chunk.sequence.gpu_s += share_s * (chunk.end - chunk.start)

    def _take(self, sequence: Sequence, token: int) -> None:
        """Add a token to an answer and end it where it ends."""
        sequence.append(token, time.monotonic())
        if token in self._eos_token_ids:
            self._finish(sequence, "stop")
            return
        self._say(sequence, sequence.detokenizer.add(token))
        if sequence.detokenizer.stopped:
            self._finish(sequence, "stop")
        elif len(sequence.output) >= sequence.max_new_tokens:
            self._finish(sequence, "length")

    def _expire(self) -> None:
        now_s = time.monotonic()
        for sequence in [sequence for sequence in self._sequences.values() if sequence.expired(now_s)]:
            self._finish(sequence, "deadline")

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self._say(sequence, sequence.detokenizer.flush())
        if reason != "deadline":
            # A next turn begins with this prompt and answer. The last token was never fed to the model.
            self._store(sequence, sequence.filled)
        del self._sequences[sequence.request_id]
        self._leave(sequence)
        usage = sequence.usage(time.monotonic())
        self._events.append(Finished(sequence.request_id, reason, usage, tuple(sequence.scores)))

    def _say(self, sequence: Sequence, text: str) -> None:
        if text:
            self._events.append(Delta(sequence.request_id, text))

    def _fail(self, request_id: str, error: GenerationError) -> None:
        self._events.append(Failed(request_id, error.code, str(error), error.retryable))

    def _leave(self, sequence: Sequence) -> None:
        self._scheduler.remove(sequence)
        self._forward.release(sequence)

    def _shed(self) -> None:
        """Answer a lack of memory: give up what can be had again, send the youngest back, try with less."""
        least = self._scheduler.least
        self._prefixes.clear()
        for sequence in self._scheduler.shed():
            self._forward.release(sequence)
        active = self._scheduler.active
        for sequence in active:  # a step may have failed between its pass and its tokens: their places come again
            sequence.filled = min(sequence.filled, sequence.known_tokens - 1)
        _LOG.warning("Out of memory: continuing with %d requests at once", len(active))
        if least:
            for sequence in active:
                del self._sequences[sequence.request_id]
                self._leave(sequence)
                self._fail(sequence.request_id, _too_large(sequence))
            active = []
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        try:
            self._forward.trim(len(active), max((sequence.filled for sequence in active), default=0))
        except (MemoryError, RuntimeError) as error:  # giving back needs room for the smaller copy
            if not is_out_of_memory(error):
                raise


def _scored(sampled: Series[Sequence]) -> list[tuple[int, Sequence]]:
    """Those whose probabilities somebody wants to know, with their rows."""
    return [(row, sequence) for row, sequence in enumerate(sampled) if sequence.score_tokens]


def _scores(logits: torch.Tensor, sequence: Sequence) -> tuple[float, ...]:
    """How probable each wanted token is by the model itself, from logits ``(vocab,)``."""
    likely = logits.float().softmax(-1)[list(sequence.score_tokens)]
    return tuple(likely.tolist())


def _too_large(sequence: Sequence) -> OutOfMemoryError:
    return OutOfMemoryError(
        f"There is not enough memory for this conversation of {sequence.known_tokens} tokens, even alone. "
        "Shorten it or start a new one."
    )
