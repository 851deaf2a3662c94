"""Decoders of the Llama kind, written out: fewer, larger products and none of the generality in between.

On a CPU at one user, half of a step of transformers' own modules goes into dispatching thirty small operations a
layer. Here queries, keys and values come from one product, gate and up projection from another.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from generation.chat.adapters import Adapter, LowRank, StepAdapters, Weights, fitting, joined
from generation.chat.attention import Attention, Shape, UnsupportedAttentionError
from generation.chat.linear import Linear
from generation.errors import AdapterError

#: Models that compute exactly this; every one is compared with its own forward pass before it is used.
ARCHITECTURES = frozenset({"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"})


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: torch.Tensor
    epsilon: float

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        return F.rms_norm(rows, self.weight.shape, self.weight, self.epsilon)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One block of the decoder."""

    before_attention: _Norm
    query_key_value: Linear
    query_norm: _Norm | None
    key_norm: _Norm | None
    attention_output: Linear
    before_mlp: _Norm
    gate_up: Linear
    down: Linear
    activation: Any


class FusedDecoder:
    """The forward pass of a Llama-like model; see ``generation.chat.forward.Decoder``.

    Args:
        model: One of ``ARCHITECTURES``. Its projections become views of the fused ones.
        shapes: How each layer makes its scores.
        compact: Whether weights may be laid out anew, see ``Linear``.

    Raises:
        UnsupportedAttentionError: The model is of another kind.
    """

    def __init__(self, model: Any, shapes: list[Shape], *, compact: bool) -> None:
        if type(model).__name__ not in ARCHITECTURES or any(shape.softcap or shape.sinks for shape in shapes):
            raise UnsupportedAttentionError("not a decoder of the Llama kind")
        body = model.model
        # What is joined, and of which sizes: adapters name the parts.
        self._sizes = [_sizes(layer) for layer in body.layers]
        attention = body.layers[0].self_attn
        self._shapes = shapes
        self._head_dim = attention.head_dim
        self._heads = attention.q_proj.out_features // attention.head_dim
        self._kv_heads = attention.k_proj.out_features // attention.head_dim
        self._embedding = body.embed_tokens
        self._rotary = body.rotary_emb
        self._layers = [_fused(layer, compact=compact) for layer in body.layers]
        self._sources = body.layers if compact else None
        self._norm = _norm(body.norm)
        self._head = Linear(model.lm_head.weight, model.lm_head.bias, compact=compact)

    def logits(
        self,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        attention: Attention,
        keep: torch.Tensor,
        adapters: StepAdapters | None = None,
    ) -> torch.Tensor:
        """As ``Decoder.logits``."""
        hidden = self._embedding(token_ids[0])
        cosine, sine = self._rotary(hidden, position_ids=positions)
        # rotate_half(x) is x rolled by half its length with the first half negated; the sign goes into the sine.
        half = self._head_dim // 2
        sine = torch.cat((-sine[0, :, None, :half], sine[0, :, None, half:]), dim=-1)
        cosine = cosine[0, :, None]
        for index, layer in enumerate(self._layers):
            hidden = hidden + self._attended(index, layer, hidden, (cosine, sine), attention, adapters)
            both = _product(layer.gate_up, layer.before_mlp(hidden), (index, "gate_up"), adapters)
            gate, up = both.chunk(2, dim=-1)
            hidden = hidden + _product(layer.down, layer.activation(gate).mul_(up), (index, "down"), adapters)
        return self._head(self._norm(hidden[keep]))

    def bind(self, name: str, weights: Weights) -> Adapter:
        """As ``Decoder.bind``."""
        left = dict(weights)
        places: dict[Hashable, LowRank] = {}
        for index, sizes in enumerate(self._sizes):
            for place, parts in sizes.items():
                own = []
                for module, (size_in, size_out) in parts.items():
                    path = f"model.layers.{index}.{module}"
                    low = left.pop(path, None)
                    own.append(low and fitting(path, low, size_in, size_out))
                together = joined(own, [size_out for _, size_out in parts.values()])
                if together is not None:
                    places[index, place] = together
        if left:
            raise AdapterError(f"The adapter does not fit the model, which has no {next(iter(left))}.")
        return Adapter(name, places)

    def release_sources(self) -> None:
        """Give up the projections that this decoder holds in layouts of its own; the model itself is then unusable."""
        for layer in self._sources or ():
            attention, mlp = layer.self_attn, layer.mlp
            projections = (attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj)
            for module in (*projections, mlp.gate_proj, mlp.up_proj, mlp.down_proj):
                module.weight.data = module.weight.new_empty(0)
        self._sources = None

    def _attended(
        self,
        index: int,
        layer: _Layer,
        hidden: torch.Tensor,
        rotation: tuple[torch.Tensor, torch.Tensor],
        attention: Attention,
        adapters: StepAdapters | None,
    ) -> torch.Tensor:
        """One layer's attention: ``(tokens, hidden)``."""
        both = self._heads + self._kv_heads
        rows = layer.before_attention(hidden)
        product = _product(layer.query_key_value, rows, (index, "query_key_value"), adapters)
        heads = product.view(hidden.shape[0], -1, self._head_dim)
        turned, value = heads[:, :both], heads[:, both:]
        if layer.query_norm is not None and layer.key_norm is not None:
            query, key = turned[:, : self._heads], turned[:, self._heads :]
            turned = torch.cat((layer.query_norm(query), layer.key_norm(key)), dim=1)
        cosine, sine = rotation
        turned = torch.addcmul(turned * cosine, turned.roll(self._head_dim // 2, -1), sine)
        query, key = turned[:, : self._heads], turned[:, self._heads :]
        attended = attention.attend(index, query, key, value, self._shapes[index]).flatten(1)
        return _product(layer.attention_output, attended, (index, "attention_output"), adapters)


#: Which of the model's projections each joined one is made of.
_PARTS = {
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention_output": ("self_attn.o_proj",),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "down": ("mlp.down_proj",),
}


def _sizes(layer: Any) -> dict[str, dict[str, tuple[int, int]]]:
    """For each joined projection its parts with their numbers in and out."""
    return {
        place: {name: (layer.get_submodule(name).in_features, layer.get_submodule(name).out_features) for name in names}
        for place, names in _PARTS.items()
    }


def _product(linear: Linear, rows: torch.Tensor, place: Hashable, adapters: StepAdapters | None) -> torch.Tensor:
    product = linear(rows)
    if adapters is not None:
        adapters.add(place, rows, product)
    return product


def _fused(layer: Any, *, compact: bool) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    query_norm, key_norm = getattr(attention, "q_norm", None), getattr(attention, "k_norm", None)
    return _Layer(
        before_attention=_norm(layer.input_layernorm),
        query_key_value=_joined([attention.q_proj, attention.k_proj, attention.v_proj], compact=compact),
        query_norm=query_norm and _norm(query_norm),
        key_norm=key_norm and _norm(key_norm),
        attention_output=_joined([attention.o_proj], compact=compact),
        before_mlp=_norm(layer.post_attention_layernorm),
        gate_up=_joined([mlp.gate_proj, mlp.up_proj], compact=compact),
        down=_joined([mlp.down_proj], compact=compact),
        activation=mlp.act_fn,
    )


def _norm(module: Any) -> _Norm:
    return _Norm(module.weight, module.variance_epsilon)


def _joined(modules: list[Any], *, compact: bool) -> Linear:
    """Several projections of the same input as one; the modules keep views, so that memory holds one copy."""
    weight, bias = modules[0].weight.detach(), modules[0].bias
    if len(modules) > 1:
        weight = torch.cat([module.weight.detach() for module in modules])
        bias = None if bias is None else torch.cat([module.bias.detach() for module in modules])
        start = 0
        for module in modules:
            module.weight.data = weight[start : start + module.out_features]
            start += module.out_features
    return Linear(weight, bias, compact=compact)
