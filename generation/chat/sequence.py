"""One request on its way through the engine."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from generation.chat.detokenizer import Detokenizer
from generation.types import Sampling, Usage

if TYPE_CHECKING:
    from generation.chat.adapters import Adapter


@dataclass(eq=False, slots=True)
class Sequence:
    """The mutable state of one request; compared by identity.

    Args:
        request_id: Whose it is.
        prompt: Token ids as the model sees them.
        sampling: How its tokens are chosen.
        max_new_tokens: Longest answer, already cut to what the context leaves.
        detokenizer: Turns its tokens into text.
        seed: Of its random draws.
        submitted_s: Monotonic time of ``submit``.
        deadline_s: Monotonic time at which the answer ends as it is.
        dropped_messages: Oldest turns that were left out of the prompt.
        adapter: What its tenant's answers have beside the model; None for the model alone.
        score_tokens: Tokens whose probabilities are wanted, whichever token is chosen.
    """

    request_id: str
    prompt: list[int]
    sampling: Sampling
    max_new_tokens: int
    detokenizer: Detokenizer
    seed: int
    submitted_s: float
    deadline_s: float | None = None
    dropped_messages: int = 0
    adapter: Adapter | None = None
    score_tokens: tuple[int, ...] = ()

    output: list[int] = field(default_factory=list)
    filled: int = 0
    row: int = -1
    cached_tokens: int = 0
    first_token_s: float | None = None
    gpu_s: float = 0.0
    seen: set[int] = field(default_factory=set)
    marked_contexts: set[tuple[int, ...]] = field(default_factory=set)
    scores: list[tuple[float, ...]] = field(default_factory=list)

    @property
    def scope(self) -> str:
        """Whose keys and values it shares: those of the same adapter."""
        return "" if self.adapter is None else self.adapter.name

    @property
    def known_tokens(self) -> int:
        """Prompt and answer so far."""
        return len(self.prompt) + len(self.output)

    @property
    def needed_tokens(self) -> int:
        """Most tokens whose keys and values it will ever hold."""
        return len(self.prompt) + self.max_new_tokens

    def tokens(self, start: int, end: int) -> list[int]:
        """Token ids at positions ``start`` to ``end`` of prompt and answer."""
        split = len(self.prompt)
        if end <= split:
            return self.prompt[start:end]
        return self.prompt[start:split] + self.output[max(0, start - split) : end - split]

    def append(self, token: int, now_s: float) -> None:
        """Take the next token of the answer."""
        self.output.append(token)
        if self.first_token_s is None:
            self.first_token_s = now_s
        if self.sampling.repetition_penalty != 1.0:
            self.seen.add(token)

    def uniform(self) -> float:
        """The random number in [0, 1) of the next token.

        A hash of seed and place rather than a generator's state: neighbours, a retried step or a pause change nothing.
        """
        place = f"{self.seed}:{len(self.output)}".encode()
        return (int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "little") >> 11) / 2**53

    def expired(self, now_s: float) -> bool:
        """Whether its deadline has passed."""
        return self.deadline_s is not None and now_s >= self.deadline_s

    def usage(self, now_s: float) -> Usage:
        """What it took up to now."""
        first = now_s if self.first_token_s is None else self.first_token_s
        return Usage(
            prompt_tokens=len(self.prompt),
            cached_tokens=self.cached_tokens,
            completion_tokens=len(self.output),
            dropped_messages=self.dropped_messages,
            ttft_s=first - self.submitted_s,
            duration_s=now_s - self.submitted_s,
            gpu_s=self.gpu_s,
        )


def new_sequence(
    request_id: str,
    prompt: list[int],
    sampling: Sampling,
    max_new_tokens: int,
    detokenizer: Detokenizer,
    deadline_s: float | None,
    dropped_messages: int,
    adapter: Adapter | None = None,
    score_tokens: tuple[int, ...] = (),
) -> Sequence:
    """Start a sequence now; a request without a seed draws a fresh one."""
    now_s = time.monotonic()
    sequence = Sequence(
        request_id=request_id,
        prompt=prompt,
        sampling=sampling,
        max_new_tokens=max_new_tokens,
        detokenizer=detokenizer,
        seed=secrets.randbits(64) if sampling.seed is None else sampling.seed,
        submitted_s=now_s,
        deadline_s=None if deadline_s is None else now_s + deadline_s,
        dropped_messages=dropped_messages,
        adapter=adapter,
        score_tokens=score_tokens,
    )
    if sampling.repetition_penalty != 1.0:
        sequence.seen.update(prompt)
    return sequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Part of a prompt to compute in one step: positions ``start`` to ``end`` of ``sequence``."""

    sequence: Sequence
    start: int
    end: int

    @property
    def completes(self) -> bool:
        """Whether the next token can be chosen once this chunk is computed."""
        return self.end == self.sequence.known_tokens


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What one forward pass computes.

    Args:
        decode: Sequences that add one token each; the i-th lies in row i of the cache.
        chunks: Parts of prompts of joining sequences.
    """

    decode: tuple[Sequence, ...]
    chunks: tuple[Chunk, ...]

    @property
    def tokens(self) -> int:
        """Tokens that go through the model."""
        return len(self.decode) + sum(chunk.end - chunk.start for chunk in self.chunks)

    @property
    def sampled(self) -> tuple[Sequence, ...]:
        """Sequences that get their next token from this step, in the order of the logits' rows."""
        return self.decode + tuple(chunk.sequence for chunk in self.chunks if chunk.completes)
