from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from generation.chat.detokenizer import Detokenizer
from generation.chat.sampling import sample
from generation.chat.sequence import Sequence, new_sequence
from generation.types import Sampling
from tests.chat_models import letter_tokenizer

VOCABULARY = 400
TOKENIZER = letter_tokenizer()


def sequence(prompt: list[int] | None = None, **sampling: object) -> Sequence:
    rules = Sampling(**{"top_p": 1.0, **sampling})  # type: ignore[arg-type]  # checked at run time
    return new_sequence("r", prompt or [1], rules, 10, Detokenizer(TOKENIZER), None, 0)


def reference(logits: torch.Tensor, rules: Sampling, seen: list[int]) -> torch.Tensor:
    """What transformers would sample from: the probabilities after its processors, in its order."""
    chain = LogitsProcessorList()
    if rules.repetition_penalty != 1.0:
        chain.append(RepetitionPenaltyLogitsProcessor(rules.repetition_penalty))
    chain.append(TemperatureLogitsWarper(rules.temperature))
    if rules.top_k:
        chain.append(TopKLogitsWarper(rules.top_k))
    if rules.top_p < 1:
        chain.append(TopPLogitsWarper(rules.top_p))
    if rules.min_p:
        chain.append(MinPLogitsWarper(rules.min_p))
    return chain(torch.tensor([seen]), logits[None].clone())[0].softmax(-1)


RULES = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 1.0, "top_k": 5},
    {"temperature": 1.3, "top_k": 300},
    {"temperature": 1.0, "top_p": 0.6},
    {"temperature": 2.0, "top_p": 0.99},
    {"temperature": 1.0, "min_p": 0.1},
    {"temperature": 0.8, "top_k": 50, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 1.4},
]


@pytest.mark.parametrize("rule", RULES)
def test_draws_follow_the_distribution_of_transformers(rule: dict[str, object]) -> None:
    logits = torch.randn(VOCABULARY, generator=torch.Generator().manual_seed(3)) * 3
    seen = [5, 9, 11]
    expected = reference(logits, sequence(**rule).sampling, seen)
    count = 3_000
    rows = [sequence(seen, seed=seed, **rule) for seed in range(count)]
    tokens = torch.tensor(sample(logits.repeat(count, 1), rows))
    found = torch.bincount(tokens, minlength=VOCABULARY) / count
    assert not bool((found > 0)[expected == 0].any()), "a token that the rules exclude"
    # The total variation of an empirical distribution of n draws over k likely tokens is about sqrt(k / 2 pi n).
    assert float((found - expected).abs().sum()) / 2 < 0.12


def test_greedy_takes_the_first_of_the_best() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[0, [7, 30]] = 4.0
    logits[1, 9] = 1.0
    assert sample(logits, [sequence(temperature=0), sequence(temperature=0)]) == [7, 9]


def test_repetition_penalty_counts_for_greedy_rows_and_only_for_its_own() -> None:
    logits = torch.zeros(2, VOCABULARY)
    logits[:, 7], logits[:, 8] = 2.0, 1.5
    rows = [sequence([7], temperature=0, repetition_penalty=2.0), sequence([7], temperature=0)]
    assert sample(logits, rows) == [8, 7]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from(range(len(RULES))), min_size=2, max_size=6), st.integers(0, 1000))
def test_a_row_does_not_depend_on_its_neighbours(picked: list[int], seed: int) -> None:
    logits = torch.randn(len(picked), VOCABULARY, generator=torch.Generator().manual_seed(seed)) * 3
    rows = [sequence([4, 5], seed=seed + n, **RULES[rule]) for n, rule in enumerate(picked)]
    together = sample(logits.clone(), rows)
    alone = [sample(logits[n : n + 1].clone(), [row])[0] for n, row in enumerate(rows)]
    assert together == alone


def test_the_next_token_has_another_draw_and_the_same_one_when_repeated() -> None:
    row = sequence(temperature=1.0, seed=1)
    first = row.uniform()
    assert row.uniform() == first
    row.append(3, 0.0)
    assert row.uniform() != first
    assert 0 <= first < 1
