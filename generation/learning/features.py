"""What the denoiser trains on, computed once: captions as features, pictures as latents.

tokens.npy      (English captions, TEXT_TOKENS, TEXT_WIDTH) float16
sentences.npy   (captions, SENTENCE_WIDTH) float16
latents.pt      (pictures, channels, rows, columns) float16, normalised
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from generation.image.autoencoder import PatchAutoencoder
from generation.image.conditioning import Conditioning
from generation.learning.dataset import DataSet
from generation.learning.loop import CPU
from generation.learning.reconstruction import to_tensor
from generation.learning.scenes import Split

log = logging.getLogger("palaver.learning.features")

ENCODE_BATCH = 256
CAPTIONS_BATCH = 2048


@dataclass(frozen=True, slots=True)
class CaptionFeatures:
    """Features of a data set's captions, by caption index.

    Args:
        tokens: ``(english, TEXT_TOKENS, TEXT_WIDTH) float16``; captions beyond are Chinese and have none.
        sentences: ``(captions, SENTENCE_WIDTH) float16``.
    """

    tokens: Tensor
    sentences: Tensor

    def take(self, captions: Tensor) -> Conditioning:
        """Gather the features of some captions, ``(captions,) int64``; Chinese ones get zeros for tokens."""
        has_tokens = captions < len(self.tokens)
        tokens = self.tokens[torch.where(has_tokens, captions, 0)] * has_tokens[:, None, None]
        return Conditioning(tokens, has_tokens, self.sentences[captions])

    def to(self, device: torch.device) -> CaptionFeatures:
        """The same features on another device."""
        return CaptionFeatures(self.tokens.to(device), self.sentences.to(device))


class CaptionChoices:
    """For each of some pictures or concepts, the captions that may be chosen for it: one padded table.

    Args:
        options: Captions of each row, at least one.
        device: Where choices are made.
    """

    def __init__(self, options: Sequence[Sequence[int]], device: torch.device = CPU) -> None:
        rows = [torch.tensor(row, dtype=torch.int64) for row in options]
        self._table = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(device)
        self._counts = torch.tensor([len(row) for row in options], device=device)

    def pick(self, rows: Tensor, share: Tensor) -> Tensor:
        """Choose for each of the rows, ``(rows,) int64``, the caption at a share, 0 to below 1, of its list."""
        counts = self._counts[rows]
        return self._table[rows, torch.minimum((share * counts).long(), counts - 1)]


def caption_features(folder: Path, data: DataSet, encode: Callable[[list[str]], Conditioning]) -> CaptionFeatures:
    """Compute the features of all captions, or take those that were computed for this data set.

    Args:
        folder: Where they are kept.
        data: Whose captions.
        encode: The text encoder.
    """
    mark = folder / "captions-of.txt"
    if not mark.exists() or mark.read_text() != data.fingerprint:
        folder.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        tokens, sentences = [], []
        for start in range(0, len(data.captions), CAPTIONS_BATCH):
            part = encode(list(data.captions[start : start + CAPTIONS_BATCH]))
            english = max(0, min(len(part.tokens), data.english - start))
            tokens.append(part.tokens[:english].numpy())
            sentences.append(part.sentence.numpy())
            log.info("captions: %d of %d encoded", start + len(part.sentence), len(data.captions))
        np.save(folder / "tokens.npy", np.concatenate(tokens))
        np.save(folder / "sentences.npy", np.concatenate(sentences))
        mark.write_text(data.fingerprint)
    return CaptionFeatures(
        torch.from_numpy(np.load(folder / "tokens.npy")), torch.from_numpy(np.load(folder / "sentences.npy"))
    )


@torch.no_grad()
def latents(
    folder: Path, data: DataSet, autoencoder: PatchAutoencoder, identity: str, device: torch.device = CPU
) -> Tensor:
    """Encode all pictures and set the autoencoder's scaling, or take the latents that were computed before.

    Args:
        folder: Where they are kept.
        data: Whose pictures.
        autoencoder: Trained; its ``latents_mean`` and ``latents_std`` are set from the training pictures.
        identity: Changes whenever the encoder's weights do.
        device: Where to compute.

    Returns:
        ``(pictures, channels, rows, columns) float16``, normalised means of the posteriors, on the CPU.
    """
    mark, path = folder / "latents-of.txt", folder / "latents.pt"
    wanted = f"{data.fingerprint} {identity}"
    if not mark.exists() or mark.read_text() != wanted:
        folder.mkdir(parents=True, exist_ok=True)
        mark.unlink(missing_ok=True)
        nn.Module.to(autoencoder, device)
        means = torch.cat(
            [
                autoencoder.encode(to_tensor(data.pictures[start : start + ENCODE_BATCH]).to(device))[0].cpu()
                for start in range(0, len(data.pictures), ENCODE_BATCH)
            ]
        )
        nn.Module.to(autoencoder, CPU)
        trained = means[torch.from_numpy(data.indices(Split.TRAIN))]
        mean, std = trained.mean(dim=(0, 2, 3)), trained.std(dim=(0, 2, 3))
        normalised = ((means - mean[:, None, None]) / std[:, None, None]).half()
        torch.save({"mean": mean, "std": std, "latents": normalised}, path)
        mark.write_text(wanted)
    stored = torch.load(path, weights_only=True)
    autoencoder.latents_mean.copy_(stored["mean"])
    autoencoder.latents_std.copy_(stored["std"])
    result: Tensor = stored["latents"]
    return result
