"""One forward pass for everything in a step."""

from __future__ import annotations

from typing import Protocol

import torch

from generation.chat.adapters import Adapter, HookedAdapters, StepAdapters, Weights, step_adapters
from generation.chat.attention import Attention, ChunkSpan, StepAttention
from generation.chat.kv_cache import Entry, KVCache
from generation.chat.sequence import Sequence, StepPlan


class Forward(Protocol):
    """What the engine needs of a model: logits for a step, and a row of state for each sequence."""

    def run(self, plan: StepPlan) -> torch.Tensor:
        """Compute a step.

        Returns:
            Logits ``(len(plan.sampled), vocab)``.
        """
        ...

    def bind(self, name: str, weights: Weights) -> Adapter:
        """Make an adapter ready for sequences to have; see ``Decoder.bind``."""
        ...

    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy a row over another."""
        ...

    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange two rows."""
        ...

    def capture(self, row: int, tokens: int) -> Entry | None:
        """Copy a row out for the prefix cache; None where states cannot be shared."""
        ...

    def restore(self, row: int, entry: Entry, tokens: int) -> None:
        """Copy a beginning into a row."""
        ...

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room for ``rows`` rows of at most ``tokens`` tokens."""
        ...

    def release(self, sequence: Sequence) -> None:
        """Forget what is kept for a sequence."""
        ...

    def trim(self, rows: int, tokens: int) -> None:
        """Give back memory that these rows do not need."""
        ...


class Decoder(Protocol):
    """A causal language model over packed tokens."""

    def logits(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        attention: Attention,
        keep: torch.Tensor,
        adapters: StepAdapters | None = None,
    ) -> torch.Tensor:
        """Run the model once.

        Args:
            token_ids: ``(1, tokens) int64``.
            positions: ``(1, tokens) int64``, of each token in its own sequence.
            attention: Called by every layer.
            keep: ``(kept,) int64``: of which tokens logits are wanted.
            adapters: What is added to which tokens.

        Returns:
            ``(kept, vocab)``.
        """
        ...

    def bind(self, name: str, weights: Weights) -> Adapter:
        """Make an adapter ready to be added.

        Args:
            name: Its id.
            weights: Its additions, on the model's device.

        Raises:
            AdapterError: It was made for another model.
        """
        ...


class Graphs(Protocol):
    """Recorded decode steps."""

    def run(self, token_ids: list[int], positions: list[int]) -> torch.Tensor | None:
        """Logits ``(rows, vocab)`` of one token of each of the first rows, or None to run the step unrecorded."""
        ...


class PackedForward:
    """All tokens of a step in one pass of the model, their state in rows of one cache."""

    def __init__(self, decoder: Decoder, cache: KVCache, device: torch.device, graphs: Graphs | None = None) -> None:
        self.cache = cache
        self._decoder = decoder
        self._device = device
        self._graphs = graphs

    def run(self, plan: StepPlan) -> torch.Tensor:
        """As ``Forward.run``."""
        token_ids = [sequence.tokens(sequence.filled, sequence.filled + 1)[0] for sequence in plan.decode]
        positions = [sequence.filled for sequence in plan.decode]
        adapters = step_adapters(plan, self._device)
        # Recorded steps know no adapters: a step that has one runs as it is, for everybody in it.
        if self._graphs is not None and not plan.chunks and adapters is None:
            logits = self._graphs.run(token_ids, positions)
            if logits is not None:
                return logits
        keep = list(range(len(token_ids)))
        spans: list[ChunkSpan] = []
        decoded = list(positions)
        for chunk in plan.chunks:
            begin = len(token_ids)
            token_ids += chunk.sequence.tokens(chunk.start, chunk.end)
            positions += range(chunk.start, chunk.end)
            spans.append(ChunkSpan(chunk.sequence.row, begin, len(token_ids), chunk.start))
            if chunk.completes:
                keep.append(len(token_ids) - 1)
        attention = StepAttention(self.cache, decoded, tuple(spans))
        return self._decoder.logits(
            torch.tensor([token_ids], device=self._device),
            torch.tensor([positions], device=self._device),
            attention,
            torch.tensor(keep, dtype=torch.long, device=self._device),
            adapters,
        )

    def bind(self, name: str, weights: Weights) -> Adapter:
        """As ``Forward.bind``."""
        return self._decoder.bind(name, weights)

    def move(self, source: int, target: int, tokens: int) -> None:
        """As ``Forward.move``."""
        self.cache.move(source, target, tokens)

    def swap(self, first: int, second: int, tokens: int) -> None:
        """As ``Forward.swap``."""
        self.cache.swap(first, second, tokens)

    def capture(self, row: int, tokens: int) -> Entry:
        """As ``Forward.capture``."""
        return self.cache.capture(row, tokens)

    def restore(self, row: int, entry: Entry, tokens: int) -> None:
        """As ``Forward.restore``."""
        self.cache.restore(row, entry, tokens)

    def reserve(self, rows: int, tokens: int) -> None:
        """As ``Forward.reserve``."""
        self.cache.ensure(rows, tokens)

    def release(self, sequence: Sequence) -> None:
        """A row that nobody has needs no care."""

    def trim(self, rows: int, tokens: int) -> None:
        """As ``Forward.trim``."""
        self.cache.trim(rows, tokens)


class TransformersDecoder:
    """A model of transformers as it is, with its attention replaced."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._adapters = HookedAdapters(model)

    def logits(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        attention: Attention,
        keep: torch.Tensor,
        adapters: StepAdapters | None = None,
    ) -> torch.Tensor:
        """As ``Decoder.logits``."""
        self._adapters.step = adapters
        result = self._model(
            input_ids=token_ids, position_ids=positions, use_cache=False, slots=attention, logits_to_keep=keep
        )
        logits: torch.Tensor = result.logits[0]
        return logits

    def bind(self, name: str, weights: Weights) -> Adapter:
        """As ``Decoder.bind``."""
        return self._adapters.bind(name, weights)
