"""The slow, general road: every sequence has transformers' own cache and its own forward pass.

For models whose state is more than keys and values (Mamba, hybrids) or whose attention is not a plain causal one.
Sequences still take turns token by token, so nobody waits for another's whole answer.
"""

from __future__ import annotations

import inspect

import torch

from generation.chat.adapters import Adapter, HookedAdapters, StepAdapters, Weights
from generation.chat.kv_cache import Entry
from generation.chat.sequence import Sequence, StepPlan

#: Under which names models hand out their cache and take it back.
_CACHE_NAMES = ("past_key_values", "cache_params")


class SequentialForward:
    """One forward pass for each sequence of a step."""

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self._model = model
        self._device = device
        self._adapters = HookedAdapters(model)
        self._states: dict[Sequence, object] = {}
        parameters = inspect.signature(model.forward).parameters
        self._cache_name = next((name for name in _CACHE_NAMES if name in parameters), None)

    def run(self, plan: StepPlan) -> torch.Tensor:
        """As ``Forward.run``."""
        rows = [self._next(sequence, sequence.filled, sequence.filled + 1) for sequence in plan.decode]
        for chunk in plan.chunks:
            row = self._next(chunk.sequence, chunk.start, chunk.end)
            if chunk.completes:
                rows.append(row)
        return torch.stack(rows) if rows else torch.empty(0, 0, device=self._device)

    def _next(self, sequence: Sequence, start: int, end: int) -> torch.Tensor:
        """Logits ``(vocab,)`` after the token before ``end``."""
        state = self._states.get(sequence)
        # Without a state, or after it was given up for lack of memory, everything before is computed again.
        own = sequence.adapter
        self._adapters.step = None if own is None else StepAdapters(((own, slice(None)),))
        token_ids = torch.tensor([sequence.tokens(start if state is not None else 0, end)], device=self._device)
        if self._cache_name is None:
            return self._last(self._model(input_ids=token_ids))
        result = self._model(input_ids=token_ids, use_cache=True, **{self._cache_name: state})
        self._states[sequence] = getattr(result, self._cache_name)
        return self._last(result)

    def bind(self, name: str, weights: Weights) -> Adapter:
        """As ``Forward.bind``."""
        return self._adapters.bind(name, weights)

    @staticmethod
    def _last(result: object) -> torch.Tensor:
        logits: torch.Tensor = result.logits[0, -1]  # type: ignore[attr-defined]  # every causal model's output has it
        return logits

    def move(self, source: int, target: int, tokens: int) -> None:
        """States belong to sequences here, not to rows."""

    def swap(self, first: int, second: int, tokens: int) -> None:
        """States belong to sequences here, not to rows."""

    def capture(self, row: int, tokens: int) -> Entry | None:  # noqa: ARG002 - a method of ``Forward``
        """A recurrent state cannot be cut to a shorter beginning."""
        return None

    def restore(self, row: int, entry: Entry, tokens: int) -> None:
        """Never called: nothing was captured."""

    def reserve(self, rows: int, tokens: int) -> None:
        """Transformers' caches grow by themselves."""

    def release(self, sequence: Sequence) -> None:
        """As ``Forward.release``."""
        self._states.pop(sequence, None)

    def trim(self, rows: int, tokens: int) -> None:  # noqa: ARG002 - a method of ``Forward``
        """Give up every state: a step that failed may have advanced some of them and not others."""
        self._states.clear()
