"""The next token of every sequence of a step, each by its own rules, computed together."""

from __future__ import annotations

from collections.abc import Sequence as Series

import torch

from generation.chat.sequence import Sequence

#: Candidates that are looked at first; a nucleus is rarely larger, and sorting a whole vocabulary costs 100 times more.
_CANDIDATES = 128


def sample(logits: torch.Tensor, sequences: Series[Sequence]) -> list[int]:
    """Choose the next token of each sequence.

    A sampled sequence takes one uniform number of its own and maps it through the inverse of its
    cumulative distribution, so neighbours change nothing but rounding.

    Args:
        logits: ``(len(sequences), vocab)`` of any floating dtype; changed in place where a penalty applies.
        sequences: In the order of the rows.

    Returns:
        A token id for each.
    """
    _penalise(logits, sequences)
    greedy = logits.argmax(dim=-1).tolist()
    rows = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]
    if not rows:
        return list(greedy)
    chosen = logits if len(rows) == len(sequences) else logits[rows]
    for row, token in zip(rows, _draw(chosen.float(), [sequences[row] for row in rows]), strict=True):
        greedy[row] = token
    return list(greedy)


def _penalise(logits: torch.Tensor, sequences: Series[Sequence]) -> None:
    """Make tokens that were seen less likely (Keskar et al., "CTRL", 2019)."""
    rows: list[int] = []
    tokens: list[int] = []
    factors: list[float] = []
    for row, sequence in enumerate(sequences):
        if sequence.sampling.repetition_penalty != 1.0:
            rows += [row] * len(sequence.seen)
            tokens += sequence.seen
            factors += [sequence.sampling.repetition_penalty] * len(sequence.seen)
    if not rows:
        return
    places = (torch.tensor(rows, device=logits.device), torch.tensor(tokens, device=logits.device))
    factor = torch.tensor(factors, dtype=logits.dtype, device=logits.device)
    seen = logits[places]
    logits[places] = torch.where(seen > 0, seen / factor, seen * factor)


def _draw(logits: torch.Tensor, sequences: Series[Sequence]) -> list[int]:
    """Sample ``(rows, vocab) float32`` logits; which way a row goes depends on that row alone."""
    device = logits.device
    settings = [sequence.sampling for sequence in sequences]
    temperature = torch.tensor([setting.temperature for setting in settings], device=device)
    logits = logits / temperature[:, None]
    uniform = torch.tensor([sequence.uniform() for sequence in sequences], dtype=torch.float64, device=device)
    tokens = torch.empty(len(sequences), dtype=torch.long, device=device)
    plain = [row for row, setting in enumerate(settings) if setting.top_k == 0 and setting.top_p >= 1.0]
    ranked = [row for row, setting in enumerate(settings) if not (setting.top_k == 0 and setting.top_p >= 1.0)]
    if plain:
        weights = _min_p(logits[plain].softmax(dim=-1), [settings[row].min_p for row in plain])
        tokens[plain] = _invert(weights, uniform[plain])
    if ranked:
        tokens[ranked] = _draw_ranked(logits[ranked], uniform[ranked], [sequences[row] for row in ranked])
    return [int(token) for token in tokens.tolist()]


def _draw_ranked(logits: torch.Tensor, uniform: torch.Tensor, sequences: Series[Sequence]) -> torch.Tensor:
    """Sample among the best tokens: first among few candidates, and among all where those do not hold the nucleus."""
    vocabulary = logits.shape[-1]
    total = logits.logsumexp(dim=-1, keepdim=True)
    top = logits.topk(min(_CANDIDATES, vocabulary), dim=-1)
    shares = (top.values - total).exp()
    covered = shares.sum(dim=-1).tolist()
    tokens = torch.empty(len(sequences), dtype=torch.long, device=logits.device)
    few: list[int] = []
    many: list[int] = []
    for row, sequence in enumerate(sequences):
        setting = sequence.sampling
        enough = 0 < setting.top_k <= _CANDIDATES or (setting.top_k == 0 and covered[row] >= setting.top_p)
        (few if enough else many).append(row)
    if few:
        settings = [sequences[row] for row in few]
        tokens[few] = top.indices[few].gather(1, _nucleus(shares[few], uniform[few], settings)[:, None])[:, 0]
    if many:
        ranked = logits[many].sort(dim=-1, descending=True, stable=True)
        weights = (ranked.values - total[many]).exp()
        settings = [sequences[row] for row in many]
        tokens[many] = ranked.indices.gather(1, _nucleus(weights, uniform[many], settings)[:, None])[:, 0]
    return tokens


def _nucleus(shares: torch.Tensor, uniform: torch.Tensor, sequences: Series[Sequence]) -> torch.Tensor:
    """Ranks drawn from descending probabilities ``(rows, candidates)`` cut by top_k, then top_p, then min_p."""
    device = shares.device
    settings = [sequence.sampling for sequence in sequences]
    count = shares.shape[-1]
    top_k = torch.tensor([setting.top_k or count for setting in settings], device=device)
    top_p = torch.tensor([setting.top_p for setting in settings], device=device)
    limited = torch.tensor([setting.top_k > 0 for setting in settings], device=device)
    weights = torch.where(torch.arange(count, device=device) < top_k[:, None], shares, 0.0)
    # top_p is a share of what top_k left over.
    whole = torch.where(limited, weights.sum(dim=-1), 1.0)
    before = weights.cumsum(dim=-1) - weights
    weights = torch.where(before < (top_p * whole)[:, None], weights, 0.0)
    return _invert(_min_p(weights, [setting.min_p for setting in settings]), uniform)


def _min_p(weights: torch.Tensor, shares: Series[float]) -> torch.Tensor:
    """Drop what is less likely than a share of the best."""
    if not any(shares):
        return weights
    least = weights.amax(dim=-1) * torch.tensor(list(shares), device=weights.device)
    return torch.where(weights >= least[:, None], weights, 0.0)


def _invert(weights: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """Where a uniform share of the total weight falls: ``(rows,) int64``, always a place with weight."""
    sums = weights.to(torch.float64).cumsum(dim=-1)
    target = uniform * sums[:, -1]
    place = torch.searchsorted(sums, target[:, None], right=True)[:, 0]
    last = weights.shape[-1] - 1 - (weights > 0).flip(-1).to(torch.uint8).argmax(dim=-1)
    return torch.minimum(place, last)
