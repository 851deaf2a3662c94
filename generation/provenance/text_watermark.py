"""A statistical mark in sampled answers: SynthID Text, as transformers has it, and a detector that needs no training.

The mark lies in which of several likely tokens is drawn, so it costs no quality that a reader sees; greedy and very
sure answers carry none. Texts of some hundred tokens are told; translation and thorough rewriting remove it.

Source: Dathathri et al., "Scalable watermarking for identifying large language model outputs", Nature 2024.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence as Series
from typing import TYPE_CHECKING, Any

import torch

from generation.provenance.types import TextDetection

if TYPE_CHECKING:
    from generation.chat.sequence import Sequence

#: Tokens that a key depends on: the candidate and those before it.
NGRAM_TOKENS = 5
_DEPTH = 30
_TABLE_SIZE = 2**16
#: The likeliest tokens are marked and the rest is not drawn; a nucleus is hardly ever larger.
_CANDIDATES = 128
#: Texts without the mark are above this once in 30,000.
DETECTED = 4.0
_LEAST_TOKENS = 20


class TextWatermark:
    """Marks the tokens that are drawn, and finds the mark again.

    Args:
        key: What the mark depends on; whoever has it can detect the mark.
        device: Where the logits are.
    """

    def __init__(self, key: str, device: torch.device | str = "cpu") -> None:
        from transformers import SynthIDTextWatermarkLogitsProcessor  # seconds to import

        stream = hashlib.shake_256(f"palaver-text-watermark-1\0{key}".encode()).digest(4 * (_DEPTH + 1))
        numbers = [int.from_bytes(stream[at : at + 4], "big") >> 1 for at in range(0, len(stream), 4)]
        self._device = torch.device(device)
        self._synthid: Any = SynthIDTextWatermarkLogitsProcessor(
            ngram_len=NGRAM_TOKENS,
            keys=numbers[:_DEPTH],
            sampling_table_size=_TABLE_SIZE,
            sampling_table_seed=numbers[_DEPTH],
            context_history_size=1,  # its own state is not used: sequences come and go
            device=self._device,
        )

    @torch.inference_mode()
    def apply(self, logits: torch.Tensor, sequences: Series[Sequence]) -> torch.Tensor:
        """Shift the logits of sampled sequences, before they are sampled.

        Args:
            logits: ``(len(sequences), vocab)`` of any floating dtype.
            sequences: In the order of the rows.

        Returns:
            Logits of the same shape; rows that are greedy, or whose context occurred before, are as they were.
        """
        rows = [row for row, sequence in enumerate(sequences) if _wanted(sequence)]
        if not rows:
            return logits
        chosen = [sequences[row] for row in rows]
        temperature = torch.tensor([each.sampling.temperature for each in chosen], device=self._device)[:, None]
        top = logits[rows].float().topk(min(_CANDIDATES, logits.shape[-1]), dim=-1)
        context = torch.tensor([_context(each) for each in chosen], device=self._device)
        keys, _ = self._synthid._compute_keys(context, top.indices)  # noqa: SLF001 - its own call keeps state by row
        updated = self._synthid.update_scores(top.values / temperature, self._synthid.sample_g_values(keys))
        marked = torch.full_like(logits[rows], torch.finfo(logits.dtype).min)
        marked.scatter_(1, top.indices, (updated * temperature).to(logits.dtype))
        logits = logits.clone()
        logits[rows] = marked
        return logits

    @torch.inference_mode()
    def detect(self, token_ids: Series[int]) -> TextDetection:
        """Whether a text has the mark.

        Args:
            token_ids: The text in the model's own tokens, without special ones.
        """
        if len(token_ids) < _LEAST_TOKENS:
            return TextDetection(0.0, False, len(token_ids))
        ids = torch.tensor([list(token_ids)], device=self._device)
        values = self._synthid.compute_g_values(ids)[0].float()
        grams = [tuple(token_ids[at : at + NGRAM_TOKENS]) for at in range(len(values))]
        first = [at for at, gram in enumerate(grams) if gram not in grams[:at]]  # repetition is no evidence
        weights = torch.linspace(10, 1, _DEPTH, device=self._device)
        weights = weights / weights.sum()
        mean = (values[first] @ weights).mean()
        deviation = 0.5 * weights.square().sum().sqrt() / len(first) ** 0.5
        score = float((mean - 0.5) / deviation)
        return TextDetection(score, score >= DETECTED, len(token_ids))


def _context(sequence: Sequence) -> list[int]:
    known = sequence.known_tokens
    context = sequence.tokens(max(0, known - NGRAM_TOKENS + 1), known)
    return [0] * (NGRAM_TOKENS - 1 - len(context)) + context


def _wanted(sequence: Sequence) -> bool:
    """Whether a draw may carry the mark: not a greedy one, and not twice after the same words, which would show."""
    if sequence.sampling.temperature == 0:
        return False
    context = tuple(_context(sequence))
    if context in sequence.marked_contexts:
        return False
    sequence.marked_contexts.add(context)
    return True
