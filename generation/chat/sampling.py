"""The next token of every sequence of a step, each by its own rules, computed together."""

from __future__ import annotations

from collections.abc import Sequence as Series

import torch

from generation.chat.sequence import Sequence

#: Candidates that are looked at first: a nucleus is rarely larger, and sorting a whole vocabulary costs 100 times more.
_CANDIDATES = 128
_BLOCK = 16
#: Halvings of an interval that a probability is searched in: as many as float32 tells apart.
_HALVINGS = 30


def sample(logits: torch.Tensor, sequences: Series[Sequence]) -> list[int]:
    """Choose the next token of each sequence.

    A sampled sequence takes one uniform number of its own and maps it through the inverse of its
    cumulative distribution, so neighbours change nothing but rounding.

    Args:
        logits: ``(len(sequences), vocab)`` of any floating dtype; changed in place.
        sequences: In the order of the rows.

    Returns:
        A token id for each.
    """
    _penalise(logits, sequences)
    greedy = _best(logits)
    rows = [row for row, sequence in enumerate(sequences) if sequence.sampling.temperature > 0]
    if not rows:
        return greedy
    for row, token in zip(rows, _draw(_rows(logits, rows).float(), [sequences[row] for row in rows]), strict=True):
        greedy[row] = token
    return greedy


def _best(logits: torch.Tensor) -> list[int]:
    """The first of the best tokens of each row."""
    if logits.device.type == "cpu":  # torch's own takes 20 ms for 32 rows of 49,152 in bf16, this one 0.3
        return [int(token) for token in logits.float().numpy().argmax(axis=-1)]
    return [int(token) for token in logits.argmax(dim=-1).tolist()]


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
    """Sample ``(rows, vocab) float32`` logits, which are changed; which way a row goes depends on that row alone."""
    device = logits.device
    settings = [sequence.sampling for sequence in sequences]
    temperature = torch.tensor([setting.temperature for setting in settings], device=device)
    logits = logits.div_(temperature[:, None])
    uniform = torch.tensor([sequence.uniform() for sequence in sequences], dtype=torch.float64, device=device)
    tokens = torch.empty(len(sequences), dtype=torch.long, device=device)
    plain = [row for row, setting in enumerate(settings) if setting.top_k == 0 and setting.top_p >= 1.0]
    ranked = [row for row, setting in enumerate(settings) if not (setting.top_k == 0 and setting.top_p >= 1.0)]
    if plain:
        weights = _min_p(_rows(logits, plain).softmax(dim=-1), [settings[row].min_p for row in plain])
        tokens[plain] = _invert(weights, uniform[plain])
    if ranked:
        tokens[ranked] = _draw_ranked(_rows(logits, ranked), uniform[ranked], [sequences[row] for row in ranked])
    return [int(token) for token in tokens.tolist()]


def _rows(tensor: torch.Tensor, rows: Series[int]) -> torch.Tensor:
    """Some rows, without a copy when all are meant."""
    return tensor if len(rows) == tensor.shape[0] else tensor[list(rows)]


def _draw_ranked(logits: torch.Tensor, uniform: torch.Tensor, sequences: Series[Sequence]) -> torch.Tensor:
    """Sample among the best tokens: among few candidates if they hold all that counts, which is nearly always."""
    total = logits.logsumexp(dim=-1, keepdim=True)
    values, indices = _top(logits, min(_CANDIDATES, logits.shape[-1]))
    shares = (values - total).exp()
    covered = shares.sum(dim=-1).tolist()
    tokens = torch.empty(len(sequences), dtype=torch.long, device=logits.device)
    few: list[int] = []
    large: list[int] = []
    for row, sequence in enumerate(sequences):
        setting = sequence.sampling
        if 0 < setting.top_k <= _CANDIDATES or (setting.top_k == 0 and covered[row] >= setting.top_p):
            few.append(row)
        elif setting.top_k:
            tokens[row] = _draw_sorted(logits[row : row + 1], uniform[row : row + 1], sequence)
        else:
            large.append(row)
    if large:
        rows = [sequences[row] for row in large]
        tokens[large] = _draw_cut((_rows(logits, large) - total[large]).exp_(), uniform[large], rows)
    if few:
        ranks = _nucleus(shares[few], uniform[few], [sequences[row] for row in few])
        tokens[few] = indices[few].gather(1, ranks[:, None])[:, 0]
    return tokens


def _top(logits: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` best of each row in descending order: values and indices ``(rows, count)``.

    The best tokens lie in the blocks with the best maxima, so most of the vocabulary is only looked at for its maxima.
    """
    rows, vocabulary = logits.shape
    if vocabulary % _BLOCK or vocabulary // _BLOCK < count:
        top = logits.topk(count, dim=-1)
        return top.values, top.indices
    blocks = logits.view(rows, -1, _BLOCK)
    chosen = blocks.amax(dim=-1).topk(count, dim=-1).indices
    places = (chosen[:, :, None] * _BLOCK + torch.arange(_BLOCK, device=logits.device)).flatten(1)
    top = logits.gather(1, places).topk(count, dim=-1)
    return top.values, places.gather(1, top.indices)


def _draw_sorted(logits: torch.Tensor, uniform: torch.Tensor, sequence: Sequence) -> torch.Tensor:
    """Sample one row among more candidates than are looked at first: ``(1,) int64``."""
    ranked = logits.sort(dim=-1, descending=True, stable=True)
    rank = _nucleus(ranked.values.softmax(dim=-1), uniform, [sequence])
    return ranked.indices[0, rank]


def _draw_cut(shares: torch.Tensor, uniform: torch.Tensor, sequences: Series[Sequence]) -> torch.Tensor:
    """Sample rows whose nucleus is large: ``(rows,) int64`` from probabilities ``(rows, vocab)``.

    The least probability in the nucleus is found by halving, without sorting.
    """
    settings = [sequence.sampling for sequence in sequences]
    top_p = torch.tensor([setting.top_p for setting in settings], device=shares.device)
    low, high = torch.zeros_like(top_p), shares.amax(dim=-1)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = torch.where(shares >= middle[:, None], shares, 0.0).sum(dim=-1) >= top_p
        low, high = torch.where(enough, middle, low), torch.where(enough, high, middle)
    weights = torch.where(shares >= low[:, None], shares, 0.0)
    return _invert(_min_p(weights, [setting.min_p for setting in settings]), uniform)


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
    rows, count = weights.shape
    if count % _BLOCK:
        return _locate(weights.to(torch.float64), uniform * weights.sum(dim=-1, dtype=torch.float64))[0]
    # First the block, then the place in it: summing up a whole vocabulary in float64 is what would take the time.
    blocks = weights.view(rows, -1, _BLOCK)
    sums = blocks.sum(dim=-1).to(torch.float64)
    block, rest = _locate(sums, uniform * sums.sum(dim=-1))
    inner = blocks[torch.arange(rows, device=weights.device), block].to(torch.float64)
    return block * _BLOCK + _locate(inner, rest)[0]


def _locate(weights: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The place whose share of the running total holds ``target``, and how far into it that lies; both ``(rows,)``."""
    sums = weights.cumsum(dim=-1)
    # Rounding may carry the target to the end or beyond, where no weight is.
    target = torch.minimum(target, torch.nextafter(sums[:, -1], torch.zeros_like(target)))[:, None]
    place = torch.searchsorted(sums, target, right=True)
    return place[:, 0], (target - (sums - weights).gather(1, place))[:, 0].clamp_min_(0.0)
