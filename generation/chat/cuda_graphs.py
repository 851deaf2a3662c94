"""Decode steps recorded as CUDA graphs: a small model on a GPU spends most of a step on launching its kernels.

A graph repeats the same kernels on the same memory, so steps are padded to a few sizes: rows to the next of a list,
lengths to the next power of two. Rows beyond those in use write to a scratch row of the cache and their logits are
dropped. Prompts and mixed steps are not recorded: their kernels are large enough.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

import torch

from generation.chat.attention import Shape, scores
from generation.chat.forward import Decoder
from generation.chat.kv_cache import KVCache

_LOG = logging.getLogger("palaver.chat.cuda_graphs")

_SMALLEST_LENGTH_TOKENS = 256
#: Runs before a capture, so that libraries have chosen their kernels and allocated their workspaces.
_WARM_UP_RUNS = 2
#: Graphs kept; beyond these the memory of their intermediate results counts.
_MOST_GRAPHS = 64


def row_bucket(rows: int, limit: int) -> int:
    """The number of rows that a step of ``rows`` rows is padded to: 1, 2, 4, 8, 16, then multiples of 16."""
    bucket = 1 << (rows - 1).bit_length() if rows <= 16 else -(-rows // 16) * 16
    return min(bucket, limit)


def length_bucket(tokens: int, limit: int) -> int:
    """The length that attention reads when the longest row has ``tokens`` tokens: a power of two, at least 256."""
    return min(max(_SMALLEST_LENGTH_TOKENS, 1 << (tokens - 1).bit_length()), limit)


class GraphAttention:
    """Attention of decode tokens with everything that changes between steps held in tensors.

    Args:
        cache: Keys and values.
        rows: Padded number of rows.
        length: Padded length.
    """

    def __init__(self, cache: KVCache, rows: int, length: int) -> None:
        device = cache.keys[0].device
        self._cache = cache
        self._rows = rows
        self._length = length
        self._places = torch.arange(length, device=device)
        self.targets = torch.zeros(rows, dtype=torch.long, device=device)  # the cache row that each token goes to
        self.positions = torch.zeros(rows, dtype=torch.long, device=device)
        self._masks: dict[int | None, torch.Tensor] = {}

    def begin(self) -> None:
        """Forget masks: each pass makes its own from ``positions``, inside the graph."""
        self._masks.clear()

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
    ) -> torch.Tensor:
        """As ``Attention.attend``: ``(rows, heads, value_dim)``."""
        keys, values = self._cache.keys[layer], self._cache.values[layer]
        keys[self.targets, :, self.positions] = key
        values[self.targets, :, self.positions] = value
        grouped = query.reshape(query.shape[0], keys.shape[1], -1, query.shape[2])
        seen = (slice(0, self._rows), slice(None), slice(0, self._length))
        return scores(grouped, keys[seen], values[seen], self._mask(shape.window), shape).flatten(1, 2)

    def _mask(self, window: int | None) -> torch.Tensor:
        if window not in self._masks:
            visible = self._places <= self.positions[:, None]
            if window is not None:
                visible &= self._places > self.positions[:, None] - window
            mask = torch.zeros(visible.shape, dtype=self._cache.keys[0].dtype, device=visible.device)
            self._masks[window] = mask.masked_fill_(~visible, float("-inf"))[:, None, None, :]
        return self._masks[window]


@dataclass(frozen=True, slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    attention: GraphAttention
    token_ids: torch.Tensor
    logits: torch.Tensor


class DecodeGraphs:
    """Records a decode step at its first use and replays it afterwards.

    Args:
        decoder: The model.
        cache: Keys and values; its last row is the scratch row.
    """

    def __init__(self, decoder: Decoder, cache: KVCache) -> None:
        self._decoder = decoder
        self._cache = cache
        self._version = cache.version
        self._recorded: dict[tuple[int, int], _Recorded] = {}
        self._pool: Any = None  # a handle without a public type
        self._usable = True

    def run(self, token_ids: list[int], positions: list[int]) -> torch.Tensor | None:
        """Decode one token of each of the first rows.

        Args:
            token_ids: One a row.
            positions: Where each goes.

        Returns:
            Logits ``(rows, vocab)``, valid until the next call; None where graphs do not work.
        """
        if not self._usable:
            return None
        if self._version != self._cache.version:
            self._recorded.clear()  # they read memory that was given back
            self._version = self._cache.version
        rows = row_bucket(len(token_ids), self._cache.rows)
        key = (rows, length_bucket(max(positions) + 1, self._cache.length))
        recorded = self._recorded.get(key)
        if recorded is None:
            if len(self._recorded) >= _MOST_GRAPHS:
                self._recorded.clear()
            recorded = self._record(*key)
            if recorded is None:
                return None
            self._recorded[key] = recorded
        _fill(recorded.token_ids[0], recorded.attention, token_ids, positions, scratch=self._cache.scratch_row)
        recorded.graph.replay()
        return recorded.logits[: len(token_ids)]

    def _record(self, rows: int, length: int) -> _Recorded | None:
        """Capture a step of this size; whatever goes wrong switches graphs off, and steps run as they are."""
        device = self._cache.keys[0].device
        attention = GraphAttention(self._cache, rows, length)
        token_ids = torch.zeros(1, rows, dtype=torch.long, device=device)
        keep = torch.arange(rows, device=device)
        attention.targets.fill_(self._cache.scratch_row)

        def step() -> torch.Tensor:
            attention.begin()
            return self._decoder.logits(token_ids, attention.positions[None], attention, keep)

        try:
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # as torch declares it
            stream.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(stream):
                for _ in range(_WARM_UP_RUNS):
                    step()
            torch.cuda.current_stream(device).wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=self._pool):
                logits = step()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError) as error:
            _LOG.warning("CUDA graphs are off: %s", str(error).splitlines()[0][:200])
            self._usable = False
            return None
        self._pool = self._pool or graph.pool()
        return _Recorded(graph, attention, token_ids, logits)


def _fill(
    inputs: torch.Tensor, attention: GraphAttention, token_ids: list[int], positions: list[int], scratch: int
) -> None:
    """Write a step's numbers where the graph reads them; rows beyond go to the scratch row."""
    count, rows = len(token_ids), inputs.shape[0]
    spare = rows - count
    numbers = torch.tensor(
        [token_ids + [0] * spare, positions + [0] * spare, [*range(count), *[scratch] * spare]], dtype=torch.long
    )
    # One copy to the device for all three.
    staged = numbers.to(inputs.device, non_blocking=True)
    inputs.copy_(staged[0])
    attention.positions.copy_(staged[1])
    attention.targets.copy_(staged[2])
