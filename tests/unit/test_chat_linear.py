"""Weights laid out anew hold the same numbers."""

from __future__ import annotations

import pytest
import torch

from generation.chat.linear import NARROW_ROWS, Linear, int4_groups


def four_bit_weights(out: int, into: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights as a Q4_1 file dequantises to, with their levels."""
    source = torch.Generator().manual_seed(0)
    levels = torch.randint(0, 16, (out, into // 32, 32), generator=source)
    levels[..., 0], levels[..., 1] = 0, 15
    step = (0.01 + torch.rand(out, into // 32, 1, generator=source) * 0.02).half().float()
    least = (-torch.rand(out, into // 32, 1, generator=source) * 0.2).half().float()
    return (levels * step + least).flatten(1), levels.flatten(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_four_bit_blocks_are_recovered_exactly(dtype: torch.dtype) -> None:
    weight, levels = four_bit_weights(48, 128)
    found = int4_groups(weight.to(dtype))
    assert found is not None
    assert torch.equal(found[0], levels.to(torch.int32))


def test_other_weights_are_not_taken_for_four_bit_ones() -> None:
    source = torch.Generator().manual_seed(0)
    assert int4_groups(torch.randn(48, 128, generator=source)) is None
    assert int4_groups(torch.randn(48, 128, generator=source).bfloat16()) is None
    assert int4_groups(torch.randn(48, 100, generator=source)) is None
    almost, _ = four_bit_weights(48, 128)
    almost[45, 40] += 0.005
    assert int4_groups(almost) is None


@pytest.mark.parametrize("rows", [1, NARROW_ROWS, NARROW_ROWS + 1, 70])
@pytest.mark.parametrize("kind", ["four bits", "bf16"])
@pytest.mark.parametrize("bias", [False, True])
def test_products_are_as_exact_as_in_bf16(rows: int, kind: str, bias: bool) -> None:
    source = torch.Generator().manual_seed(1)
    weight = four_bit_weights(96, 64)[0] if kind == "four bits" else torch.randn(96, 64, generator=source)
    weight = weight.bfloat16()
    offset = torch.randn(96, generator=source).bfloat16() if bias else None
    given = torch.randn(rows, 64, generator=source).bfloat16()
    exact = given.double() @ weight.double().T + (offset.double() if offset is not None else 0)
    found = Linear(weight, offset, compact=True)(given)
    assert found.dtype == torch.bfloat16
    assert float((found.double() - exact).norm() / exact.norm()) < 6e-3


def test_float32_is_left_alone() -> None:
    weight, given = torch.randn(8, 32), torch.randn(3, 32)
    assert torch.equal(Linear(weight, None, compact=False)(given), torch.nn.functional.linear(given, weight))
