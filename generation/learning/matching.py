"""A scorer of how well a picture and a caption fit: two small towers into one space, for evaluation and as a loss."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from generation.image.conditioning import SENTENCE_WIDTH, TEXT_WIDTH, Conditioning

PICTURE_PX = 64
# Text features are unit vectors of some hundred values; layers expect values of about 1.
TOKEN_SCALE, SENTENCE_SCALE = 3.0, 20.0


class Convolution(nn.Module):
    """A convolution without bias whose weights are one matrix, so that Muon moves them.

    Args:
        channels_in: Channels of its input.
        channels_out: Channels of its output.
        side: Of its kernel.
        stride: Of its places.
    """

    def __init__(self, channels_in: int, channels_out: int, side: int, stride: int = 1) -> None:
        super().__init__()
        self.shape, self.stride, self.padding = (channels_out, channels_in, side, side), stride, (side - 1) // 2
        values = channels_in * side * side
        self.weight = nn.Parameter(torch.randn(channels_out, values) * values**-0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(batch, channels_in, rows, columns)`` to ``(batch, channels_out, rows', columns')``."""
        return F.conv2d(maps, self.weight.view(self.shape), stride=self.stride, padding=self.padding)


class Residual(nn.Module):
    """Two 3x3 convolutions beside the identity, after a normalisation over channels and places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, width)
        self.first = Convolution(width, width, 3)
        self.second = Convolution(width, width, 3)
        nn.init.normal_(self.second.weight, std=0.1 * (9 * width) ** -0.5)

    def forward(self, maps: Tensor) -> Tensor:
        """Map ``(batch, width, rows, columns)`` to the same shape."""
        active: Tensor = maps + self.second(F.relu(self.first(self.norm(maps))))
        return active


class PictureTextScorer(ModelMixin, ConfigMixin):  # type: ignore[misc]  # both name the configuration file
    """Embeds pictures and captions so that those that belong together are near each other.

    The picture's tower is a small convolutional network; the text's is two layers over the frozen encoders' features,
    one of which may be absent, as it is for Chinese.

    Args:
        stem_width: Channels at a half of the picture's side.
        stage_widths: Channels at a quarter, an eighth and a sixteenth of it.
        embedding_width: Length of an embedding.
        text_width: Width of the text tower.

    Source: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision" (CLIP), 2021.
    """

    @register_to_config  # type: ignore[untyped-decorator]  # diffusers leaves it unannotated
    def __init__(
        self,
        stem_width: int = 32,
        stage_widths: tuple[int, ...] = (64, 128, 160),
        embedding_width: int = 256,
        text_width: int = 384,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # diffusers leaves it unannotated
        self.stem = nn.Conv2d(3, stem_width, 3, stride=2, padding=1)
        stages, channels = [], stem_width
        for width in stage_widths:
            stages.append(nn.Sequential(Convolution(channels, width, 3, stride=2), Residual(width), Residual(width)))
            channels = width
        self.stages = nn.ModuleList(stages)
        self.norm_picture = nn.LayerNorm(2 * channels)
        self.picture_out = nn.Linear(2 * channels, embedding_width)
        self.no_tokens = nn.Parameter(torch.zeros(TEXT_WIDTH))
        self.text_in = nn.Linear(TEXT_WIDTH + SENTENCE_WIDTH, text_width)
        self.text_out = nn.Linear(text_width, embedding_width)
        self.log_scale = nn.Parameter(torch.tensor(2.7))

    def maps(self, pictures: Tensor) -> list[Tensor]:
        """Feature maps at a half, a quarter, an eighth and a sixteenth of the side; a perceptual loss compares them."""
        maps = [F.relu(self.stem(pictures))]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps

    def pictures(self, pictures: Tensor) -> Tensor:
        """Embed pictures.

        Args:
            pictures: ``(batch, 3, height, width)`` in -1 to 1, of the weights' dtype; other sizes than 64 px are
                resampled to it.

        Returns:
            ``(batch, embedding) float32``, of unit length.
        """
        if pictures.shape[-1] != PICTURE_PX:
            pictures = F.interpolate(pictures, (PICTURE_PX, PICTURE_PX), mode="bilinear", antialias=True)
        last = self.maps(pictures)[-1]
        pooled = torch.cat([last.mean(dim=(2, 3)), last.amax(dim=(2, 3))], dim=1)
        return F.normalize(self.picture_out(self.norm_picture(pooled)).float(), dim=-1)

    def texts(self, tokens: Tensor, sentences: Tensor, tokens_dropped: Tensor) -> Tensor:
        """Embed captions.

        Args:
            tokens: ``(captions, TEXT_WIDTH)``, mean of the token features (``pool``).
            sentences: ``(captions, SENTENCE_WIDTH)``, of unit length.
            tokens_dropped: ``(captions,) bool``: use the sentence alone.

        Returns:
            ``(captions, embedding) float32``, of unit length.
        """
        dtype = self.no_tokens.dtype
        pooled = torch.where(tokens_dropped[:, None], self.no_tokens, tokens.to(dtype) * TOKEN_SCALE)
        features = torch.cat([pooled, sentences.to(dtype) * SENTENCE_SCALE], dim=1)
        return F.normalize(self.text_out(F.gelu(self.text_in(features))).float(), dim=-1)

    def captions(self, condition: Conditioning) -> Tensor:
        """Embed captions from what the denoiser is conditioned on; ``(captions, embedding) float32``."""
        return self.texts(pool(condition.tokens), condition.sentence, ~condition.has_tokens)


def pool(tokens: Tensor) -> Tensor:
    """Average the token features of each text: ``(texts, tokens, width)`` to ``(texts, width) float32``."""
    tokens = tokens.float()
    present = (tokens != 0).any(dim=-1).sum(dim=1, keepdim=True).clamp(min=1)
    return tokens.sum(dim=1) / present


def choice_accuracy(pictures: Tensor, captions: Tensor, truth: Tensor, choices: int, rounds: int = 50) -> float:
    """How often the right caption fits a picture best among some chosen at random.

    Args:
        pictures: ``(pictures, embedding)``.
        captions: ``(captions, embedding)``, each of another concept.
        truth: ``(pictures,) int64``: the right caption of each picture.
        choices: Captions to choose from, the right one included.
        rounds: Random choices for each picture.

    Returns:
        The share, 0 to 1; chance is ``1 / choices``.
    """
    scores = pictures @ captions.T
    right = scores.gather(1, truth[:, None])
    generator = torch.Generator().manual_seed(0)
    wins = 0.0
    for _ in range(rounds):
        # One of the others: a number below the right one stays, one from there on moves up.
        others = torch.randint(len(captions) - 1, (len(pictures), choices - 1), generator=generator)
        others = others + (others >= truth[:, None])
        wins += float((scores.gather(1, others) < right).all(dim=1).float().mean())
    return wins / rounds
