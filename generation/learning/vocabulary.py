"""What the concepts of a data set are called, in English and Chinese, and the features of those captions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

from generation.image.conditioning import Conditioning
from generation.learning.dataset import DataSet
from generation.learning.matching import PictureTextScorer
from generation.learning.scenes import Kind
from generation.learning.sources import TextEncoder


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The captions that name each concept, in any style, with their features.

    Args:
        codes: Of the concepts, sorted.
        english: For each of them, positions in the features; the first is its name.
        chinese: Likewise.
        features: Of all those captions.
        texts: All those captions.
    """

    codes: tuple[str, ...]
    english: tuple[tuple[int, ...], ...]
    chinese: tuple[tuple[int, ...], ...]
    features: Conditioning
    texts: tuple[str, ...]

    def first(self, *, chinese: bool = False) -> Conditioning:
        """Features of each concept's name, ``(concepts, ...)``."""
        positions = torch.tensor([options[0] for options in (self.chinese if chinese else self.english)])
        features = self.features
        return Conditioning(features.tokens[positions], features.has_tokens[positions], features.sentence[positions])

    @torch.inference_mode()
    def embedded(self, model: PictureTextScorer, *, chinese: bool = False) -> Tensor:
        """Each concept in the scorer's space: the middle of all its captions of a language, ``(concepts, embedding)``.

        Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", 2021 (prompt
        ensembling): it recognises new concepts better than the name alone does.
        """
        return F.normalize(self.means(model.captions(self.features), chinese=chinese), dim=-1)

    def means(self, values: Tensor, *, chinese: bool) -> Tensor:
        """Average values of captions, ``(captions, width)``, over those of each concept in a language."""
        options = self.chinese if chinese else self.english
        return torch.stack([values[list(row)].mean(dim=0) for row in options])

    def names(self) -> list[str]:
        """The English name of each concept."""
        return [self.texts[options[0]] for options in self.english]


def vocabulary(data: DataSet, encode: TextEncoder) -> Vocabulary:
    """Collect the captions that all single pictures of a concept have in common: those that name no style.

    Args:
        data: Whose concepts.
        encode: The text encoder.
    """
    shared: dict[str, list[int]] = {}
    for record in data.records:
        if record.kind == Kind.SINGLE:
            before = shared.setdefault(record.code, list(record.captions))
            shared[record.code] = [caption for caption in before if caption in record.captions]
    used = sorted({caption for captions in shared.values() for caption in captions})
    place = {caption: position for position, caption in enumerate(used)}
    codes = tuple(sorted(shared))

    def options(code: str, english: bool) -> tuple[int, ...]:
        return tuple(place[caption] for caption in shared[code] if (caption < data.english) == english)

    texts = tuple(data.captions[caption] for caption in used)
    return Vocabulary(
        codes,
        tuple(options(code, english=True) for code in codes),
        tuple(options(code, english=False) for code in codes),
        encode(list(texts)),
        texts,
    )
