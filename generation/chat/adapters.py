"""Low-rank adapters (LoRA): additions to a model's projections, for the rows of some requests of a step alone.

The base product is computed once for all rows of a step; each adapter in it then adds ``x @ down.T @ up.T`` to the rows
of its own requests. Rows without one are not touched, so that they are what they would be without any adapter around.

Source: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021; adapters beside each other in a batch as
in Sheng et al., "S-LoRA: Serving Thousands of Concurrent LoRA Adapters", 2023.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

from generation.chat.sequence import StepPlan
from generation.errors import AdapterError


@dataclass(frozen=True, slots=True)
class LowRank:
    """What is added to one projection.

    Args:
        down: ``(rank, in)``, in the model's dtype or in float32.
        up: ``(out, rank)``, likewise, the adapter's scale included.
    """

    down: torch.Tensor
    up: torch.Tensor

    @property
    def size_bytes(self) -> int:
        """Memory it takes."""
        return self.down.nbytes + self.up.nbytes


def dtype_of(device: torch.device, dtype: torch.dtype) -> torch.dtype:
    """In which numbers additions are kept: small products in bf16 take a CPU several times as long as in float32.

    Args:
        device: Where the model computes.
        dtype: In which numbers.
    """
    return torch.float32 if device.type == "cpu" else dtype


#: What a file of an adapter holds, by the dotted name of each projection.
Weights = Mapping[str, LowRank]


@dataclass(frozen=True, eq=False, slots=True)
class Adapter:
    """An adapter in the form in which one decoder adds it; compared by identity.

    Args:
        name: Its id: keys and values that were computed with it are of use to no other.
        places: What is added where; the decoder's own names.
    """

    name: str
    places: Mapping[Hashable, LowRank]

    @property
    def size_bytes(self) -> int:
        """Memory it takes."""
        return sum(each.size_bytes for each in self.places.values())


@dataclass(frozen=True, slots=True)
class StepAdapters:
    """Which rows of a step's packed tokens get which addition.

    Args:
        parts: Each adapter in the step with its rows: a slice where they lie together, else ``(rows,) int64``.
    """

    parts: tuple[tuple[Adapter, slice | torch.Tensor], ...]

    def add(self, place: Hashable, inputs: torch.Tensor, product: torch.Tensor) -> None:
        """Add to a projection's product, in place.

        Args:
            place: Which projection.
            inputs: ``(tokens, in)``.
            product: ``(tokens, out)``.
        """
        for adapter, rows in self.parts:
            low = adapter.places.get(place)
            if low is None:
                continue
            added = F.linear(F.linear(inputs[rows].to(low.down.dtype), low.down), low.up)
            if isinstance(rows, slice):
                product[rows] += added
            else:
                product.index_add_(0, rows, added.to(product.dtype))


def step_adapters(plan: StepPlan, device: torch.device) -> StepAdapters | None:
    """Who in a step has an adapter; None where nobody has.

    Args:
        plan: The step: a token of each running sequence, then the chunks, as they are packed.
        device: Where the model computes.
    """
    rows: dict[Adapter, list[int]] = {}
    for row, sequence in enumerate(plan.decode):
        if sequence.adapter is not None:
            rows.setdefault(sequence.adapter, []).append(row)
    begin = len(plan.decode)
    for chunk in plan.chunks:
        end = begin + chunk.end - chunk.start
        if chunk.sequence.adapter is not None:
            rows.setdefault(chunk.sequence.adapter, []).extend(range(begin, end))
        begin = end
    if not rows:
        return None
    return StepAdapters(tuple((adapter, _places(own, device)) for adapter, own in rows.items()))


def _places(rows: list[int], device: torch.device) -> slice | torch.Tensor:
    if rows[-1] - rows[0] + 1 == len(rows):  # neighbours, and in order
        return slice(rows[0], rows[-1] + 1)
    return torch.tensor(rows, dtype=torch.long, device=device)


def joined(parts: Sequence[LowRank | None], outs: Sequence[int]) -> LowRank | None:
    """Additions to several projections of the same input as one addition to their joined product.

    Args:
        parts: One for each projection; None where nothing is added.
        outs: Numbers that each projection gives.

    Returns:
        ``down`` behind each other, ``up`` as blocks on a diagonal; None where nothing is added at all.
    """
    known = [part for part in parts if part is not None]
    if not known:
        return None
    ranks = [0 if part is None else part.down.shape[0] for part in parts]
    up = known[0].up.new_zeros(sum(outs), sum(ranks))
    row = column = 0
    for part, out, rank in zip(parts, outs, ranks, strict=True):
        if part is not None:
            up[row : row + out, column : column + rank] = part.up
        row, column = row + out, column + rank
    return LowRank(torch.cat([part.down for part in known]), up)


def fitting(name: str, low: LowRank, size_in: int, size_out: int) -> LowRank:
    """The addition, if it is one for a projection of this size.

    Raises:
        AdapterError: It was made for another.
    """
    rank = low.down.shape[0]
    if low.down.shape != (rank, size_in) or low.up.shape != (size_out, rank):
        raise AdapterError(f"The adapter does not fit the model: {name} has another size.")
    return low


class HookedAdapters:
    """Adapters of a model that runs through its own modules: hooks on the projections that any adapter adds to.

    Args:
        model: Of transformers. It has no hooks before the first adapter.
    """

    def __init__(self, model: torch.nn.Module) -> None:
        self._model = model
        self._hooked: set[str] = set()
        self.step: StepAdapters | None = None

    def bind(self, name: str, weights: Weights) -> Adapter:
        """As ``Decoder.bind``.

        Raises:
            AdapterError: It was made for another model.
        """
        places: dict[Hashable, LowRank] = {}
        for path, low in weights.items():
            try:
                module: Any = self._model.get_submodule(path)
            except AttributeError:
                raise AdapterError(f"The adapter does not fit the model, which has no {path}.") from None
            size_in, size_out = _sizes(path, module)
            places[path] = fitting(path, low, size_in, size_out)
        for path in set(weights) - self._hooked:
            self._model.get_submodule(path).register_forward_hook(self._hook(path))
            self._hooked.add(path)
        return Adapter(name, places)

    def _hook(self, path: str) -> Any:
        def add(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:  # noqa: ARG001 - a hook
            if self.step is not None:
                rows = inputs[0].reshape(-1, inputs[0].shape[-1])
                self.step.add(path, rows, output.view(-1, output.shape[-1]))

        return add


def _sizes(path: str, module: Any) -> tuple[int, int]:
    """In and out of a projection."""
    if isinstance(module, torch.nn.Linear):
        return module.in_features, module.out_features
    if type(module).__name__ == "Conv1D":  # GPT-2's, whose weight lies the other way round
        return int(module.weight.shape[0]), int(module.weight.shape[1])
    raise AdapterError(f"The adapter does not fit the model, whose {path} is no projection.")
