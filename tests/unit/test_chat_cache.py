"""Rows of keys and values, shared beginnings, and attention over them against the plain formula."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from generation.chat.attention import ChunkSpan, Segment, Shape, StepAttention, segments
from generation.chat.kv_cache import KVCache, LayerShape
from generation.chat.prefix_cache import BLOCK_TOKENS, PrefixCache

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _inference() -> Iterator[None]:
    with torch.inference_mode():
        yield


def cache(budget_tokens: int = 10_000, kv_heads: int = 2) -> KVCache:
    return KVCache([LayerShape(kv_heads, 4, 6)] * 2, torch.float32, CPU, budget_tokens)


def test_rows_survive_growth_and_moves() -> None:
    kept = cache()
    kept.ensure(2, 10)
    kept.keys[1][0, :, :10] = 1.0
    kept.values[1][1, :, :10] = 2.0
    version = kept.version
    kept.ensure(2, 10)
    assert kept.version == version, "no reallocation without need"
    kept.ensure(5, 200)
    assert kept.version > version
    assert float(kept.keys[1][0, :, :10].sum()) == 80
    assert float(kept.values[1][1].sum()) == 2 * 10 * 2 * 6
    kept.swap(0, 1, 10)
    assert float(kept.keys[1][1].sum()) == 80
    kept.move(1, 3, 10)
    assert float(kept.keys[1][3].sum()) == 80
    entry = kept.capture(3, 7)
    kept.restore(4, entry, 5)
    assert float(kept.keys[1][4].sum()) == 5 * 2 * 4
    kept.trim(1, 3)
    assert (kept.rows, kept.keys[0].shape[0]) == (1, 1)


def test_growth_ahead_of_need_stays_within_the_budget() -> None:
    kept = cache(budget_tokens=1024)
    kept.ensure(8, 128)
    assert (kept.rows, kept.length) == (8, 128)
    kept.ensure(1, 900)
    assert kept.rows * kept.length <= 1024, "rows that nobody has are given back for a long one"


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["", "", "a"]), st.lists(st.integers(0, 1), max_size=60)), max_size=12),
    st.integers(20, 200),
)
def test_prefix_cache_finds_the_longest_stored_beginning(stored: list[tuple[str, list[int]]], capacity: int) -> None:
    prefixes = PrefixCache(capacity)
    alive: list[tuple[str, list[int]]] = []
    for scope, tokens in stored:
        found = prefixes.match(tokens, len(tokens), scope)
        if found is not None:
            source = found.entry[0][0].flatten().tolist()
            assert source[: found.tokens] == tokens[: found.tokens], "what is supplied is what was asked for"
            assert float(found.entry[0][1]) == len(scope), "and was computed with the same adapter"
        longest = max((common(other, tokens) // BLOCK_TOKENS for own, other in alive if own == scope), default=0)
        assert (found.tokens // BLOCK_TOKENS if found else 0) == longest
        if prefixes.wants(tokens, scope):
            prefixes.store(tokens, [(torch.tensor(tokens).float(), torch.tensor(len(scope)))], scope)
        alive = [(own, list(key)) for own, key in prefixes._stored]
        assert prefixes.used_tokens == sum(len(key) for _, key in alive) <= capacity
    prefixes.clear()
    assert not prefixes.used_tokens
    assert not prefixes._index


def common(first: list[int], second: list[int]) -> int:
    return next(
        (n for n, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def test_the_longer_conversation_replaces_its_beginning_and_the_least_used_goes_first() -> None:
    prefixes = PrefixCache(3 * BLOCK_TOKENS)
    entry = [(torch.zeros(1), torch.zeros(1))]
    first, second = [1] * BLOCK_TOKENS, [2] * BLOCK_TOKENS
    prefixes.store(first, entry)
    prefixes.store(second, entry)
    prefixes.store(first + [3] * BLOCK_TOKENS, entry)
    assert prefixes.used_tokens == 3 * BLOCK_TOKENS
    assert prefixes.match(second, 99) is not None
    prefixes.store([4] * BLOCK_TOKENS, entry)
    assert prefixes.match(first, 99) is None
    assert prefixes.match(second, 99) is not None
    assert not PrefixCache(0).wants(first)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 5000), min_size=1, max_size=40))
def test_segments_cover_all_rows_and_waste_little(lengths: list[int]) -> None:
    found = segments(lengths)
    assert [segment.start for segment in found] == [0, *(segment.end for segment in found[:-1])]
    assert found[-1].end == len(lengths)
    cost = sum((segment.end - segment.start) * segment.length + 512 for segment in found)
    assert all(segment.length == max(lengths[segment.start : segment.end]) for segment in found)
    assert cost <= len(lengths) * max(lengths) + 512


def test_one_long_row_does_not_make_the_others_long() -> None:
    assert segments([100] * 8 + [4000]) == (Segment(0, 8, 100), Segment(8, 9, 4000))
    assert segments([]) == ()


@pytest.mark.parametrize("window", [None, 5])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("sinks", [False, True])
@pytest.mark.parametrize("positions", [[0], [7], [9, 3, 9], [6, 6], []])
def test_packed_attention_is_the_plain_formula(
    window: int | None, softcap: float | None, sinks: bool, positions: list[int]
) -> None:
    source = torch.Generator().manual_seed(1)
    kv_heads, heads = 2, 6
    kept = cache(kv_heads=kv_heads)
    kept.ensure(len(positions) + 2, 30)
    for tensor in (*kept.keys, *kept.values):
        tensor.copy_(torch.randn(tensor.shape, generator=source))
    count = len(positions)
    spans = (ChunkSpan(count, count, count + 4, 9), ChunkSpan(count + 1, count + 4, count + 7, 0))
    tokens = count + 7
    query = torch.randn(tokens, heads, 4, generator=source)
    key = torch.randn(tokens, kv_heads, 4, generator=source)
    value = torch.randn(tokens, kv_heads, 6, generator=source)
    shape = Shape(0.3, window, softcap, torch.randn(heads, generator=source) if sinks else None)
    output = StepAttention(kept, positions, spans).attend(1, query, key, value, shape)
    places = [(row, position) for row, position in enumerate(positions)]
    places += [(span.row, span.past + n) for span in spans for n in range(span.end - span.begin)]
    for token, (row, position) in enumerate(places):
        assert torch.equal(kept.keys[1][row, :, position], key[token])
        for head in range(heads):
            low = 0 if window is None else max(0, position - window + 1)
            keys = kept.keys[1][row, head // 3, low : position + 1]
            score = keys @ query[token, head] * 0.3
            score = score if softcap is None else torch.tanh(score / softcap) * softcap
            extra = score if shape.sinks is None else torch.cat([score, shape.sinks[head : head + 1]])
            weights = extra.softmax(-1)[: len(score)]
            expected = weights @ kept.values[1][row, head // 3, low : position + 1]
            torch.testing.assert_close(output[token, head], expected, rtol=1e-4, atol=1e-5)
