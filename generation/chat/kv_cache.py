"""Keys and values of all sequences in flight, one row a sequence, in tensors that attention reads without gathering."""

from __future__ import annotations

from dataclasses import dataclass

import torch

#: Rows are lengthened in steps of this many tokens, so that a growing answer reallocates rarely.
LENGTH_GRAIN_TOKENS = 64

Entry = list[tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one layer stores for a token.

    Args:
        kv_heads: Key and value heads.
        key_dim: Numbers in a key.
        value_dim: Numbers in a value; some models make it differ from ``key_dim``.
    """

    kv_heads: int
    key_dim: int
    value_dim: int

    @property
    def numbers(self) -> int:
        """Numbers stored for one token."""
        return self.kv_heads * (self.key_dim + self.value_dim)


class KVCache:
    """Per layer a pair ``(rows, kv_heads, length, dim)``; both rows and length grow with need.

    Args:
        shapes: One for each layer.
        dtype: Of keys and values.
        device: Where they lie.
        budget_tokens: Most tokens, rows times length, that growing ahead of need may take.
        scratch: Whether there is one row more, ``scratch_row``, that nobody reads.
    """

    def __init__(
        self,
        shapes: list[LayerShape],
        dtype: torch.dtype,
        device: torch.device,
        budget_tokens: int,
        *,
        scratch: bool = False,
    ) -> None:
        self.rows = 0
        self.length = 0
        self.version = 0  # changes with every reallocation, so that captured graphs know that they are stale
        self.keys: list[torch.Tensor] = []
        self.values: list[torch.Tensor] = []
        self._budget_tokens = budget_tokens
        self._spare_rows = int(scratch)
        for shape in shapes:
            self.keys.append(torch.zeros(0, shape.kv_heads, 0, shape.key_dim, dtype=dtype, device=device))
            self.values.append(torch.zeros(0, shape.kv_heads, 0, shape.value_dim, dtype=dtype, device=device))

    @property
    def scratch_row(self) -> int:
        """Where padding may be written."""
        return self.rows

    @torch.inference_mode()
    def ensure(self, rows: int, tokens: int) -> None:
        """Make room for ``rows`` sequences of at most ``tokens`` tokens each, all there are; what they stored stays.

        Growth doubles, within the budget, so that the cost of copying is amortised; beyond the budget the need alone
        counts, and rows or tokens that are not needed now are given back.
        """
        if rows <= self.rows and tokens <= self.length:
            return
        new_rows = self.rows if rows <= self.rows else max(rows, 2 * self.rows)
        new_length = self.length if tokens <= self.length else max(tokens, 2 * self.length)
        if new_rows * _rounded(new_length) > self._budget_tokens:
            new_rows, new_length = rows, tokens
        self._resize(new_rows, _rounded(new_length))

    @torch.inference_mode()
    def trim(self, rows: int, tokens: int) -> None:
        """Give back what ``rows`` sequences of ``tokens`` tokens do not need."""
        self._resize(rows, _rounded(tokens))

    def _resize(self, rows: int, length: int) -> None:
        """Reallocate a tensor at a time: the peak is one tensor above the new size.

        The recorded size is the smaller one until all is done, so a lack of memory in between leaves a usable cache.
        """
        self.version += 1
        self.rows, self.length = min(rows, self.rows), min(length, self.length)
        for tensors in (self.keys, self.values):
            for layer, old in enumerate(tensors):
                tensors[layer] = _resized(old, rows + self._spare_rows, length)
        self.rows, self.length = rows, length

    @torch.inference_mode()
    def move(self, source: int, target: int, tokens: int) -> None:
        """Copy the first ``tokens`` tokens of row ``source`` over row ``target``."""
        for tensors in (self.keys, self.values):
            for tensor in tensors:
                tensor[target, :, :tokens] = tensor[source, :, :tokens]

    @torch.inference_mode()
    def swap(self, first: int, second: int, tokens: int) -> None:
        """Exchange the first ``tokens`` tokens of two rows; nothing has changed when memory runs out."""
        kept = self.capture(first, tokens)
        self.move(second, first, tokens)
        self.restore(second, kept, tokens)

    @torch.inference_mode()
    def capture(self, row: int, tokens: int) -> Entry:
        """Copy a row's first ``tokens`` tokens out: per layer ``(kv_heads, tokens, dim)`` twice."""
        return [
            (keys[row, :, :tokens].clone(), values[row, :, :tokens].clone())
            for keys, values in zip(self.keys, self.values, strict=True)
        ]

    @torch.inference_mode()
    def restore(self, row: int, entry: Entry, tokens: int) -> None:
        """Copy the first ``tokens`` tokens of a captured row into a row."""
        for layer, (keys, values) in enumerate(entry):
            self.keys[layer][row, :, :tokens] = keys[:, :tokens]
            self.values[layer][row, :, :tokens] = values[:, :tokens]


def _rounded(tokens: int) -> int:
    return -(-tokens // LENGTH_GRAIN_TOKENS) * LENGTH_GRAIN_TOKENS


def _resized(old: torch.Tensor, rows: int, length: int) -> torch.Tensor:
    """The same content in another size; zeros elsewhere, because masked attention still multiplies what it reads."""
    if old.shape[0] == rows and old.shape[2] == length:
        return old
    new = old.new_zeros(rows, old.shape[1], length, old.shape[3])
    kept_rows, kept_length = min(rows, old.shape[0]), min(length, old.shape[2])
    new[:kept_rows, :, :kept_length] = old[:kept_rows, :, :kept_length]
    return new
