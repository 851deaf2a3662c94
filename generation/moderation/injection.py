"""The embedded detector of prompt injection: instructions in a text that are meant for the model that will read it."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional

from generation.moderation.cues import LEAST_EVIDENCE, evidence
from generation.moderation.parts import quotations, windows
from generation.moderation.spelling import fold
from generation.moderation.types import Category, Finding
from generation.moderation.weights import NANOGUARD, TOKENIZER_FILE, WEIGHTS_FILE

#: How cues and model are weighed: 0.5 is where ordinary dialogue and long ordinary prompts are let through, measured.
_OFFSET, _MODEL_WEIGHT = 4.0, 0.3
#: Parts of long texts that are judged by themselves: of what a person writes, and of what is only quoted.
PROMPT_WINDOW_CHARS, QUOTED_WINDOW_CHARS = 4_000, 500
_BOS, _PAD = "<|reserved_0|>", "<|reserved_1|>"


class _Block(nn.Module):
    """Bidirectional attention with rotary positions and normalised queries and keys, and squared ReLU."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict(
            {name: nn.Linear(width, width, bias=False) for name in ("c_q", "c_k", "c_v", "c_proj")}
        )
        self.mlp = nn.ModuleDict(
            {"c_fc": nn.Linear(width, 4 * width, bias=False), "c_proj": nn.Linear(4 * width, width, bias=False)}
        )

    def forward(self, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        normal = _norm(x)
        query, key, value = (self._heads(self.attn[name](normal)) for name in ("c_q", "c_k", "c_v"))
        query, key = _norm(_rotated(query, cos, sin)), _norm(_rotated(key, cos, sin))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        x = x + self.attn["c_proj"](mixed.transpose(1, 2).flatten(2))
        hidden = torch.relu(self.mlp["c_fc"](_norm(x))).square()
        out: torch.Tensor = x + self.mlp["c_proj"](hidden)
        return out

    def _heads(self, x: torch.Tensor) -> torch.Tensor:
        return x.view(*x.shape[:-1], self.heads, -1).transpose(1, 2)


class InjectionNetwork(nn.Module):
    """A transformer that classifies. Source: the ``metatronnanoguard`` package, whose outputs it reproduces."""

    def __init__(self, config: dict[str, int]) -> None:
        super().__init__()
        width, heads, layers = config["n_embd"], config["n_head"], config["n_layer"]
        self.transformer = nn.ModuleDict(
            {
                "wte": nn.Embedding(config["vocab_size"], width),
                "h": nn.ModuleList([_Block(width, heads) for _ in range(layers)]),
            }
        )
        self._blocks: list[nn.Module] = list(self.transformer["h"].children())
        self.cls_norm = nn.LayerNorm(width)
        self.cls_head = nn.Linear(width, config["num_classes"])
        self.resid_lambdas = nn.Parameter(torch.ones(layers))
        self.x0_lambdas = nn.Parameter(torch.zeros(layers))
        size = width // heads
        frequencies = 10_000 ** (-torch.arange(0, size, 2, dtype=torch.float32) / size)
        angles = torch.outer(torch.arange(config["sequence_len"], dtype=torch.float32), frequencies)
        # The original keeps its tables in bfloat16, and was trained with them.
        self._cos, self._sin = (table.bfloat16().float() for table in (angles.cos(), angles.sin()))

    def forward(self, token_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            token_ids: ``(batch, length) int64``, padded at the end.
            mask: ``(batch, length) float32``, 1 where there is a token.

        Returns:
            ``(batch, 2) float32``: safe, injection.
        """
        length = token_ids.shape[1]
        cos, sin = self._cos[:length], self._sin[:length]
        x = first = _norm(self.transformer["wte"](token_ids))
        for layer, block in enumerate(self._blocks):
            x = block(self.resid_lambdas[layer] * x + self.x0_lambdas[layer] * first, cos, sin)
        weights = mask.unsqueeze(-1)
        pooled = (_norm(x) * weights).sum(1) / weights.sum(1).clamp(min=1)
        logits: torch.Tensor = self.cls_head(self.cls_norm(pooled))
        return logits


class InjectionDetector:
    """Scores texts for prompt injection, many at once.

    Args:
        folder: The converted model, see ``weights.installed``.
    """

    name = f"model:{NANOGUARD.name}"
    version = NANOGUARD.version

    def __init__(self, folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        self._tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
        self._tokenizer.encode_special_tokens = True  # a text that spells one out is text
        self._bos, self._pad = (int(self._tokenizer.token_to_id(name) or 0) for name in (_BOS, _PAD))
        self._most_tokens = int(config["sequence_len"])
        self._network = InjectionNetwork(config)
        self._network.load_state_dict(load_file(folder / WEIGHTS_FILE))
        self._network.eval()

    def findings(self, texts: Sequence[str]) -> list[list[Finding]]:
        """What cues and model together see in each text, all of it; texts without cues cost nothing.

        What a text quotes is judged in small parts as well, which see an attack between other things and take more of
        what people write at length for one.
        """
        found: list[list[Finding]] = [[] for _ in texts]
        parts = [(place, part) for place, text in enumerate(texts) for part in _parts(text)]
        weighed = [(place, part, evidence(fold(part).text)) for place, part in parts]
        asked = [each for each in weighed if each[2] >= LEAST_EVIDENCE]
        for (place, _, weight), score in zip(asked, self.scores([part for _, part, _ in asked]), strict=True):
            sure = 1 / (1 + math.exp(_OFFSET - weight - _MODEL_WEIGHT * _logit(score)))
            if not found[place] or found[place][0].score < sure:
                found[place] = [Finding(Category.INJECTION, sure, self.name, self.version)]
        return found

    @torch.inference_mode()
    def scores(self, texts: Sequence[str], padded_tokens: int = 0) -> list[float]:
        """How likely each text is an injection, 0 to 1.

        Args:
            texts: Whole texts; of a long one the beginning is read.
            padded_tokens: Length to pad to at least.
        """
        ids = [self.token_ids(text) for text in texts]
        if not ids:
            return []
        length = max(padded_tokens, *map(len, ids))
        tokens = torch.full((len(ids), length), self._pad)
        mask = torch.zeros(len(ids), length)
        for row, each in enumerate(ids):
            tokens[row, : len(each)] = torch.tensor(each)
            mask[row, : len(each)] = 1
        scores: list[float] = self._network(tokens, mask).softmax(-1)[:, 1].tolist()
        return scores

    def token_ids(self, text: str) -> list[int]:
        """What the model reads of a text."""
        return [self._bos, *self._tokenizer.encode(text, add_special_tokens=False).ids][: self._most_tokens]


def _parts(text: str) -> list[str]:
    quoted = [part for each in quotations(text) for part in windows(each, QUOTED_WINDOW_CHARS)]
    return windows(text, PROMPT_WINDOW_CHARS) + quoted


def _logit(score: float) -> float:
    """Log odds, from -8 to 10: beyond that the model is only louder, not surer."""
    return min(10.0, max(-8.0, math.log(max(score, 1e-7) / max(1 - score, 1e-7))))


def _norm(x: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, (x.shape[-1],))


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Rotary positions. ``x`` is ``(batch, heads, length, size)``."""
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos + right * sin, right * cos - left * sin), -1)
