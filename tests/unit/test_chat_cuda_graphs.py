"""What of the recorded steps can be seen without a GPU: sizes, the padded attention, and doing without."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from generation.chat.attention import Attention, Shape, StepAttention
from generation.chat.cuda_graphs import DecodeGraphs, GraphAttention, _fill, length_bucket, row_bucket
from generation.chat.kv_cache import KVCache, LayerShape


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def filled_cache() -> KVCache:
    cache = KVCache([LayerShape(2, 4, 4)], torch.float32, torch.device("cpu"), 10_000, scratch=True)
    cache.ensure(8, 64)
    for tensor in (*cache.keys, *cache.values):
        tensor.copy_(torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0)))
    return cache


@given(st.integers(1, 200), st.integers(0, 100))
def test_row_buckets_hold_the_rows_with_little_padding(rows: int, spare: int) -> None:
    bucket = row_bucket(rows, rows + spare)
    assert rows <= bucket <= rows + spare
    assert bucket < rows + max(16, rows)


@given(st.integers(1, 9_000), st.integers(0, 9_000))
def test_length_buckets_hold_the_tokens(tokens: int, spare: int) -> None:
    bucket = length_bucket(tokens, tokens + spare)
    assert tokens <= bucket <= tokens + spare
    assert bucket <= max(256, 2 * tokens)


def test_there_are_few_buckets() -> None:
    assert sorted({row_bucket(rows, 64) for rows in range(1, 65)}) == [1, 2, 4, 8, 16, 32, 48, 64]
    assert sorted({length_bucket(tokens, 2048) for tokens in range(1, 2049)}) == [256, 512, 1024, 2048]


@pytest.mark.parametrize("window", [None, 6])
def test_padded_attention_equals_that_of_the_rows_alone(window: int | None) -> None:
    positions, source = [9, 30, 4], torch.Generator().manual_seed(1)
    query = torch.randn(3, 6, 4, generator=source)
    key, value = (torch.randn(3, 2, 4, generator=source) for _ in range(2))
    shape = Shape(None, window)
    plain, padded = filled_cache(), filled_cache()
    expected = StepAttention(plain, positions, ()).attend(0, query, key, value, shape)
    attention = GraphAttention(padded, rows=4, length=64)
    inputs = torch.zeros(4, dtype=torch.long)
    _fill(inputs, attention, [1, 2, 3], positions, scratch=padded.scratch_row)
    pad = torch.full((1, 2, 4), 7.0)
    given_query = torch.cat([query, torch.ones(1, 6, 4)])
    found = attention.attend(0, given_query, torch.cat([key, pad]), torch.cat([value, pad]), shape)
    torch.testing.assert_close(found[:3], expected)
    assert inputs.tolist() == [1, 2, 3, 0]
    rows = slice(0, padded.rows)
    assert torch.equal(padded.keys[0][rows], plain.keys[0][rows]), "padding is written to the scratch row only"


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what happens where nothing can be recorded")
def test_without_graphs_steps_run_as_they_are(caplog: pytest.LogCaptureFixture) -> None:
    class Decoder:
        def logits(
            self, token_ids: torch.Tensor, positions: torch.Tensor, attention: Attention, keep: torch.Tensor
        ) -> torch.Tensor:
            return torch.zeros(len(keep), 5)

    graphs = DecodeGraphs(Decoder(), filled_cache())
    with caplog.at_level(logging.WARNING, logger="palaver.chat.cuda_graphs"):
        assert graphs.run([1], [5]) is None
        assert graphs.run([1], [6]) is None
    assert len(caplog.records) == 1
