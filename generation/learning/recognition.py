"""Which concept a picture shows, among any that can be named, also ones that were never trained on."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor

from generation.learning.dataset import DataSet
from generation.learning.matching import PictureTextScorer, choice_accuracy, pool
from generation.learning.reconstruction import to_tensor
from generation.learning.scenes import Kind, Split
from generation.learning.vocabulary import Vocabulary

EMBED_BATCH = 256
GROUPS = (("known concepts", Split.HELD_PICTURE), ("new concepts", Split.HELD_CONCEPT))
CHOICES = (4, 20)


class Recogniser:
    """Compares pictures with concepts in two ways at once, each by a cosine.

    One is the scorer's own space. The other is the frozen text encoders': a picture is the mixture of the known
    concepts that the scorer sees in it, and a new concept is near those whose names mean something similar.

    Args:
        model: The scorer.
        data: Says which concepts were trained on.
        words: Names of all concepts.

    Source: Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2014.
    """

    def __init__(self, model: PictureTextScorer, data: DataSet, words: Vocabulary) -> None:
        self._model = model
        known = {data.records[position].code for position in data.indices(Split.TRAIN, Kind.SINGLE)}
        trained = torch.tensor([index for index, code in enumerate(words.codes) if code in known])
        names = words.embedded(model)
        self._names, self._trained = names, names[trained]
        english, chinese = _meaning(words, trained, chinese=False), _meaning(words, trained, chinese=True)
        self._meaning = english[trained]
        self._captions = (
            torch.cat([names, english], dim=1),
            torch.cat([words.embedded(model, chinese=True), chinese], dim=1),
        )

    def captions(self, *, chinese: bool = False) -> Tensor:
        """Every concept, by its captions of a language, ``(concepts, features) float32``."""
        return self._captions[int(chinese)]

    @torch.inference_mode()
    def pictures(self, pictures: Tensor) -> Tensor:
        """Pictures, ``(pictures, 3, side, side) float32`` in -1 to 1, as ``(pictures, features) float32``."""
        found = embed(self._model, pictures)
        seen = (found @ self._trained.T * self._scale()).softmax(dim=1)
        return torch.cat([found, F.normalize(seen @ self._meaning, dim=1)], dim=1)

    @torch.inference_mode()
    def chances(self, pictures: Tensor) -> Tensor:
        """How probable each concept is for each picture, ``(pictures, concepts) float32``."""
        return (embed(self._model, pictures) @ self._names.T * self._scale()).softmax(dim=1)

    def _scale(self) -> float:
        return float(self._model.log_scale.detach().exp())


def _meaning(words: Vocabulary, trained: Tensor, *, chinese: bool) -> Tensor:
    """Mean text features of each concept, without what all have in common, ``(concepts, features)`` of unit length."""
    features = words.features
    parts = []
    for values in (pool(features.tokens), features.sentence.float()):
        means = words.means(values, chinese=chinese)
        centred = means - means[trained].mean(dim=0)
        # Chinese has no tokens: zeros there leave the comparison to the sentence.
        parts.append(F.normalize(centred, dim=1) * 0.5**0.5)
    return torch.cat(parts, dim=1)


@torch.inference_mode()
def embed(model: PictureTextScorer, pictures: Tensor) -> Tensor:
    """Embed many pictures, ``(pictures, 3, side, side) float32``, some at a time."""
    return torch.cat([model.pictures(part) for part in torch.split(pictures, EMBED_BATCH)])


def accuracies(recogniser: Recogniser, data: DataSet, words: Vocabulary) -> Mapping[str, float]:
    """How often real held-out pictures get their right caption: among 4 and 20, known and new concepts, 2 languages."""
    row = {code: index for index, code in enumerate(words.codes)}
    result = {}
    for group, split in GROUPS:
        positions = data.indices(split, Kind.SINGLE)
        if not len(positions):
            continue
        found = recogniser.pictures(to_tensor(data.pictures[positions]))
        truth = torch.tensor([row[data.records[position].code] for position in positions])
        for language in ("English", "Chinese"):
            captions = recogniser.captions(chinese=language == "Chinese")
            for choices in CHOICES:
                if choices <= len(captions):
                    figure = f"real pictures of {group}, {language}, {choices} choices"
                    result[figure] = choice_accuracy(found, captions, truth, choices)
    return result
