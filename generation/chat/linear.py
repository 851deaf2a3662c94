"""Products with weights that are laid out for the number of rows they meet.

A step of one user multiplies one row with every weight, so reading the weights is all the work; a step of many users
or a prompt is bound by arithmetic. On a CPU that computes in bf16 the same weights are therefore kept twice: in as few
bytes as hold them exactly for few rows, and in oneDNN's blocked layout for many.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch
import torch.nn.functional as F  # noqa: N812 - its customary name

_LOG = logging.getLogger("palaver.chat.linear")

#: Up to this many rows the compact layout is faster (measured on AVX-512 BF16 for 576 x 576 to 49152 x 576).
NARROW_ROWS = 16
_GROUP = 32
_LEVELS = 15
_SAMPLE_ROWS = 32
#: Largest error of a group's values, in units of the group's largest magnitude, that rounding to bf16 explains: half a
#: unit of its last place in the value itself and as much in the ends of the group's range.
_ROUNDING = 2.0**-7

Product = Callable[[torch.Tensor], torch.Tensor]


class Linear:
    """``x @ weight.T + bias`` for ``(rows, in)`` inputs.

    Args:
        weight: ``(out, in)`` in the model's dtype.
        bias: ``(out,)`` or None.
        compact: Whether to lay the weights out anew. What the product rounds to changes with it, so not in float32.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, *, compact: bool) -> None:
        self._bias = bias
        self._narrow = (_int4(weight) or _fp16(weight)) if compact else None
        self._wide = (_blocked(weight) if compact else None) or _plain(weight)

    def __call__(self, rows: torch.Tensor) -> torch.Tensor:
        """``(rows, in)`` to ``(rows, out)``."""
        product = self._narrow if self._narrow is not None and rows.shape[0] <= NARROW_ROWS else self._wide
        result = product(rows)
        return result if self._bias is None else result.add_(self._bias)


def _plain(weight: torch.Tensor) -> Product:
    return lambda rows: F.linear(rows, weight)


def int4_groups(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None:
    """Recover the four-bit blocks that weights were dequantised from, if they were.

    GGUF's Q4_1 stores 32 neighbouring weights as a least value, a step and a number of steps from 0 to 15 each, with
    both ends of the range in use. Weights that have this form are what 16 levels hold; others are told apart because
    they lie anywhere between the levels.

    Args:
        weight: ``(out, in)``, ``in`` a multiple of 32.

    Returns:
        Levels ``(out, in) int32``, step and least value ``(out, in / 32) float32``; None for other weights.

    Source:
        https://github.com/ggml-org/ggml/blob/master/src/ggml-quants.c, ``quantize_row_q4_1_ref``.
    """
    if weight.shape[1] % _GROUP:
        return None
    if weight.shape[0] > _SAMPLE_ROWS and int4_groups(weight[:_SAMPLE_ROWS]) is None:
        return None  # nearly all weights are told by a few rows
    groups = weight.float().reshape(weight.shape[0], -1, _GROUP)
    least, most = groups.amin(-1), groups.amax(-1)
    step = (most - least) / _LEVELS
    levels = ((groups - least[..., None]) / step.clamp_min(1e-30)[..., None]).round_().clamp_(0, _LEVELS)
    error = (levels * step[..., None] + least[..., None] - groups).abs_().amax(-1)
    if bool((error > _ROUNDING * torch.maximum(most.abs(), least.abs())).any()):
        return None
    return levels.flatten(1).to(torch.int32), step, least


def _int4(weight: torch.Tensor) -> Product | None:
    """Four bits a weight, for weights that never had more."""
    found = int4_groups(weight)
    if found is None or weight.shape[0] % 16:
        return None
    levels, step, least = found
    # torch counts levels from the middle: weight = (level - 8) * step + middle.
    ranges = torch.stack([step, least + 8 * step], dim=-1).transpose(0, 1).contiguous().to(torch.bfloat16)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(levels, 2)  # noqa: SLF001 - torch has no public name
    return lambda rows: torch.ops.aten._weight_int4pack_mm_for_cpu(rows, packed, _GROUP, ranges)  # noqa: SLF001


def _fp16(weight: torch.Tensor) -> Product | None:
    """FBGEMM's fp16 weights with float32 arithmetic: ten bits of mantissa hold bf16's seven."""
    if "fbgemm" not in torch.backends.quantized.supported_engines or float(weight.detach().abs().max()) > 6e4:
        return None
    packed = torch.ops.quantized.linear_prepack_fp16(weight.detach().float(), None)
    product = torch.ops.quantized.linear_dynamic_fp16
    return lambda rows: product(rows.float(), packed).to(rows.dtype)


def _blocked(weight: torch.Tensor) -> Product | None:
    """OneDNN's own order of the weights, made once instead of in every call."""
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, 2 * NARROW_ROWS)  # noqa: SLF001 - no public name
    except (RuntimeError, AttributeError) as error:  # a build without oneDNN
        _LOG.debug("weights stay as they are: %s", type(error).__name__)
        return None
    product = torch.ops.mkldnn._linear_pointwise  # noqa: SLF001 - no public name
    return lambda rows: product(rows, packed, None, "none", [], "")
