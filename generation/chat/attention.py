"""Attention over the rows of a KV cache, for any decoder of transformers that takes a pluggable attention function.

One forward pass carries one token of every running sequence and chunks of the prompts of joining ones, packed as a
single ``[1, tokens]`` row, so that the weights are read once a step. Only attention has to know who is who.
"""

from __future__ import annotations

from collections.abc import Sequence as Series
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name
from transformers import AttentionInterface

from generation.chat.kv_cache import KVCache

#: Name under which the function is registered with transformers.
IMPLEMENTATION = "palaver_slots"

#: Reading this many cached tokens costs about as much as one more attention call, so rows of different length are
#: attended together up to this much padding.
_CALL_COST_TOKENS = 512

#: Keyword arguments that transformers' decoders pass and that change nothing here, or that are handled.
_KNOWN_ARGUMENTS = frozenset(
    {"dropout", "scaling", "sliding_window", "softcap", "s_aux", "is_causal", "position_ids", "use_cache"}
    | {"cache_position", "output_attentions", "output_hidden_states", "return_dict", "slots", "output_router_logits"}
)


class UnsupportedAttentionError(Exception):
    """A model asks attention for something that the packed form does not do; the engine then takes another road."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How a layer's scores are made.

    Args:
        scaling: Factor of the scores; None for the inverse square root of the key's dimension.
        window: Each token sees itself and this many less one before it; None for all.
        softcap: Scores are squashed to this range by tanh (Gemma 2); None for none.
        sinks: ``(heads,)``, one more score for each head that takes part in the softmax only (gpt-oss).
    """

    scaling: float | None = None
    window: int | None = None
    softcap: float | None = None
    sinks: torch.Tensor | None = None


@runtime_checkable
class Attention(Protocol):
    """What one forward pass carries to every layer."""

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
    ) -> torch.Tensor:
        """Store the step's keys and values and attend.

        Args:
            layer: Index into the cache.
            query: ``(tokens, heads, key_dim)``.
            key: ``(tokens, kv_heads, key_dim)``.
            value: ``(tokens, kv_heads, value_dim)``.
            shape: How scores are made.

        Returns:
            ``(tokens, heads, value_dim)`` in the dtype of ``query``.
        """
        ...


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows ``start`` to ``end`` whose decode tokens are attended in one call over the first ``length`` tokens."""

    start: int
    end: int
    length: int


@dataclass(frozen=True, slots=True)
class ChunkSpan:
    """A prompt chunk: tokens ``begin`` to ``end`` of the packed row are positions ``past`` on of cache row ``row``."""

    row: int
    begin: int
    end: int
    past: int

    @property
    def length(self) -> int:
        """Tokens of the sequence once the chunk is stored."""
        return self.past + self.end - self.begin


@dataclass(slots=True)
class StepAttention:
    """Attention of one step: decode tokens of the first rows, then prompt chunks.

    Args:
        cache: Keys and values.
        positions: Position of the decode token of each of the first rows.
        chunks: The prompt chunks that follow the decode tokens.
    """

    cache: KVCache
    positions: list[int]
    chunks: tuple[ChunkSpan, ...]
    _columns: torch.Tensor = field(init=False)
    _segments: tuple[Segment, ...] = field(init=False)
    _masks: dict[tuple[int, int | None, int], torch.Tensor | None] = field(init=False, default_factory=dict)
    _places: dict[int, torch.Tensor] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        device = self.cache.keys[0].device
        self._columns = torch.tensor(self.positions, dtype=torch.long, device=device)
        self._segments = segments([position + 1 for position in self.positions])

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, shape: Shape
    ) -> torch.Tensor:
        """As ``Attention.attend``: ``(tokens, heads, value_dim)``."""
        self._store_decoded(layer, key, value)
        if len(self._segments) == 1 and not self.chunks:
            return self._attend_segment(0, layer, query, shape)
        output = query.new_empty(query.shape[0], query.shape[1], value.shape[2])
        for index, segment in enumerate(self._segments):
            rows = slice(segment.start, segment.end)
            output[rows] = self._attend_segment(index, layer, query[rows], shape)
        for index, span in enumerate(self.chunks):
            part = slice(span.begin, span.end)
            self.cache.keys[layer][span.row, :, span.past : span.length] = key[part].transpose(0, 1)
            self.cache.values[layer][span.row, :, span.past : span.length] = value[part].transpose(0, 1)
            output[part] = self._attend_chunk(index, layer, query[part], shape)
        return output

    def _store_decoded(self, layer: int, key: torch.Tensor, value: torch.Tensor) -> None:
        keys, values, count = self.cache.keys[layer], self.cache.values[layer], len(self.positions)
        if count == 1:  # plain slices are several times faster than index tensors
            keys[0, :, self.positions[0]] = key[0]
            values[0, :, self.positions[0]] = value[0]
        elif count:
            # Rows of a flat view: ten times faster than two index tensors with a slice between them.
            places = self._flat_places(keys.shape[1], keys.shape[2])
            keys.view(-1, keys.shape[3]).index_copy_(0, places, key[:count].reshape(-1, keys.shape[3]))
            values.view(-1, values.shape[3]).index_copy_(0, places, value[:count].reshape(-1, values.shape[3]))

    def _flat_places(self, kv_heads: int, length: int) -> torch.Tensor:
        """Places ``(decode * kv_heads,)`` of the decode tokens in a cache seen as ``(rows * heads * length, dim)``."""
        if kv_heads not in self._places:
            heads = torch.arange(kv_heads, device=self._columns.device)
            rows = torch.arange(len(self.positions), device=self._columns.device)
            flat = (rows[:, None] * kv_heads + heads) * length + self._columns[:, None]
            self._places[kv_heads] = flat.flatten()
        return self._places[kv_heads]

    def _attend_segment(self, index: int, layer: int, query: torch.Tensor, shape: Shape) -> torch.Tensor:
        """One token of each row of a segment: ``(rows, heads, value_dim)``."""
        segment = self._segments[index]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        low = _low(min(self.positions[segment.start : segment.end]), shape.window)
        mask = self._decode_mask(index, shape.window, low)
        rows, places = slice(segment.start, segment.end), slice(low, segment.length)
        grouped = query.reshape(query.shape[0], keys.shape[1], -1, query.shape[2])
        return scores(grouped, keys[rows, :, places], values[rows, :, places], mask, shape).flatten(1, 2)

    def _attend_chunk(self, index: int, layer: int, query: torch.Tensor, shape: Shape) -> torch.Tensor:
        """The tokens of a prompt chunk: ``(tokens, heads, value_dim)``."""
        span = self.chunks[index]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        low = _low(span.past, shape.window)
        kv_heads, places = keys.shape[1], slice(low, span.length)
        mask = self._chunk_mask(index, shape.window, low, query.shape[1] // kv_heads)
        # Heads that share a key are laid behind each other in the query, so that keys are not repeated.
        grouped = query.transpose(0, 1).reshape(1, kv_heads, -1, query.shape[2])
        result = scores(grouped, keys[span.row, None, :, places], values[span.row, None, :, places], mask, shape)
        return result.reshape(query.shape[1], query.shape[0], -1).transpose(0, 1)

    def _decode_mask(self, index: int, window: int | None, low: int) -> torch.Tensor | None:
        """Additive mask ``(rows, 1, 1, length - low)`` of a segment, or None when every row sees all of it."""
        key = (index, window, 0)
        if key not in self._masks:
            segment = self._segments[index]
            if min(self.positions[segment.start : segment.end]) == segment.length - 1:
                self._masks[key] = None  # rows of equal length see the same places, a window included
            else:
                places = torch.arange(low, segment.length, device=self._columns.device)
                visible = _visible(self._columns[segment.start : segment.end], places, window)
                self._masks[key] = _additive(visible, self.cache.keys[0].dtype)[:, None, None, :]
        return self._masks[key]

    def _chunk_mask(self, index: int, window: int | None, low: int, groups: int) -> torch.Tensor | None:
        """Additive mask ``(groups * tokens, length - low)`` of a chunk."""
        key = (-1 - index, window, groups)
        if key not in self._masks:
            span = self.chunks[index]
            places = torch.arange(low, span.length, device=self._columns.device)
            queries = torch.arange(span.past, span.length, device=self._columns.device)
            visible = _visible(queries, places, window)
            self._masks[key] = _additive(visible, self.cache.keys[0].dtype).repeat(groups, 1)
        return self._masks[key]


def segments(lengths: Series[int]) -> tuple[Segment, ...]:
    """Group neighbouring rows of similar length, trading padding against calls.

    The best cut minimises the sum over groups of rows times longest row plus a constant for each call; dynamic
    programming over the cuts finds it in time quadratic in the number of rows.
    """
    if lengths and len(lengths) * (max(lengths) - min(lengths)) <= _CALL_COST_TOKENS:
        return (Segment(0, len(lengths), max(lengths)),)
    best: list[tuple[int, int]] = [(0, 0)]  # cost of the rows before, start of the last group
    for end in range(1, len(lengths) + 1):
        longest, candidates = 0, []
        for start in range(end - 1, -1, -1):
            longest = max(longest, lengths[start])
            candidates.append((best[start][0] + (end - start) * longest + _CALL_COST_TOKENS, start))
        best.append(min(candidates))
    found: list[Segment] = []
    end = len(lengths)
    while end:
        start = best[end][1]
        found.append(Segment(start, end, max(lengths[start:end])))
        end = start
    return tuple(reversed(found))


def scores(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, shape: Shape
) -> torch.Tensor:
    """Attention of ``(rows, kv_heads, groups * tokens, dim)`` queries over ``(rows, kv_heads, length, dim)``."""
    if shape.softcap is None and shape.sinks is None:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=shape.scaling)
    scaling = query.shape[-1] ** -0.5 if shape.scaling is None else shape.scaling
    weights = (query @ key.transpose(2, 3)) * scaling
    if shape.softcap is not None:
        weights = torch.tanh(weights / shape.softcap) * shape.softcap
    if mask is not None:
        weights = weights + mask
    if shape.sinks is not None:
        heads = shape.sinks.to(weights.dtype).view(1, key.shape[1], -1, 1)
        column = heads.repeat_interleave(query.shape[2] // heads.shape[2], dim=2)
        weights = torch.cat([weights, column.expand(weights.shape[0], -1, -1, -1)], dim=-1)
    weights = weights.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return weights[..., : key.shape[2]] @ value


def _low(position: int, window: int | None) -> int:
    return 0 if window is None else max(0, position + 1 - window)


def _visible(queries: torch.Tensor, places: torch.Tensor, window: int | None) -> torch.Tensor:
    visible = places <= queries[:, None]
    if window is not None:
        visible &= places > queries[:, None] - window
    return visible


def _additive(visible: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Zero where visible, minus infinity elsewhere: attention kernels would convert a boolean mask in every layer."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, float("-inf"))


def slot_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: object,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in place of its own attention; ``slots`` carries the ``StepAttention``.

    Args:
        module: The attention layer; its ``layer_idx`` names its cache.
        query: ``(1, heads, tokens, key_dim)``.
        key: ``(1, kv_heads, tokens, key_dim)``.
        value: ``(1, kv_heads, tokens, value_dim)``.
        attention_mask: Must be None: who sees what follows from the step.
        kwargs: What transformers passes along.

    Returns:
        ``(1, tokens, heads, value_dim)`` and no weights.

    Raises:
        UnsupportedAttentionError: The model asks for something else than causal attention.
    """
    strange = [name for name, given in kwargs.items() if given is not None and name not in _KNOWN_ARGUMENTS]
    if attention_mask is not None:
        strange.append("attention_mask")
    step, layer = kwargs.get("slots"), getattr(module, "layer_idx", None)
    if strange or layer is None or not isinstance(step, Attention):
        raise UnsupportedAttentionError(f"attention with {', '.join(strange) or 'no layer index'}")
    shape = Shape(
        scaling=kwargs.get("scaling"),  # type: ignore[arg-type]  # transformers passes a float or None
        window=kwargs.get("sliding_window"),  # type: ignore[arg-type]  # an int or None
        softcap=kwargs.get("softcap"),  # type: ignore[arg-type]  # a float or None
        sinks=kwargs.get("s_aux"),  # type: ignore[arg-type]  # a tensor or None
    )
    flat_query, flat_key, flat_value = (tensor[0].transpose(0, 1) for tensor in (query, key, value))
    return step.attend(layer, flat_query, flat_key, flat_value, shape).unsqueeze(0), None


AttentionInterface.register(IMPLEMENTATION, slot_attention)
