"""The embedded image classifier: MobileNetV2 of nsfwjs, five classes of pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional

from generation.moderation.types import Category, Finding
from generation.moderation.weights import NSFWJS, WEIGHTS_FILE

CLASSES = ("drawing", "hentai", "neutral", "porn", "sexy")
SIZE_PX = 224
#: Blocks by number, and the stride of their depthwise convolution: 2 where the resolution halves.
_STRIDE_2 = frozenset({1, 3, 6, 13})
_BLOCKS = 17


class NsfwClassifier:
    """Scores pictures, many at once.

    Args:
        folder: The converted model, see ``weights.installed``.
    """

    name = f"model:{NSFWJS.name}"
    version = NSFWJS.version

    def __init__(self, folder: Path) -> None:
        self._weights = load_file(folder / WEIGHTS_FILE)

    def findings(self, pictures: Sequence[bytes]) -> list[list[Finding]]:
        """What the model sees in each encoded picture.

        Raises:
            OSError: One cannot be decoded.
        """
        told = []
        for scores in self.scores([opened(picture) for picture in pictures]):
            sexual = scores["porn"] + scores["hentai"]
            suggestive = sexual + scores["sexy"]
            told.append(
                [
                    Finding(Category.SEXUAL, sexual, self.name, self.version),
                    Finding(Category.SUGGESTIVE, suggestive, self.name, self.version),
                ]
            )
        return told

    @torch.inference_mode()
    def scores(self, pictures: Sequence[Image.Image]) -> list[dict[str, float]]:
        """Scores by class for each picture, which sum to 1."""
        if not pictures:
            return []
        batch = torch.stack([_pixels(picture) for picture in pictures])
        return [dict(zip(CLASSES, row, strict=True)) for row in self.forward(batch).softmax(-1).tolist()]

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Logits.

        Args:
            pixels: ``(batch, 3, 224, 224) float32``, 0 to 1.

        Returns:
            ``(batch, 5) float32``.
        """
        x = self._convolution("Conv1", pixels, stride=2)
        x = self._block("expanded_conv", x, expand=False, stride=1)
        for number in range(1, _BLOCKS):
            x = self._block(f"block_{number}", x, expand=True, stride=2 if number in _STRIDE_2 else 1)
        x = self._convolution("Conv_1", x).mean((2, 3))
        for layer in ("dense_1", "dense_2"):
            x = torch.relu(self._dense(layer, x))
        return self._dense("dense_3", x)

    def _block(self, name: str, x: torch.Tensor, *, expand: bool, stride: int) -> torch.Tensor:
        """An inverted residual. Source: Sandler et al., "MobileNetV2", 2018."""
        y = self._convolution(f"{name}_expand", x) if expand else x
        y = self._convolution(f"{name}_depthwise", y, stride=stride, groups=y.shape[1])
        y = self._convolution(f"{name}_project", y, active=False)
        return x + y if x.shape == y.shape else y

    def _convolution(
        self, name: str, x: torch.Tensor, *, stride: int = 1, groups: int = 1, active: bool = True
    ) -> torch.Tensor:
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        if weight.shape[-1] == 3:
            # Keras pads a halving convolution at the far side only.
            x = functional.pad(x, (0, 1, 0, 1) if stride == 2 else (1, 1, 1, 1))
        y = functional.conv2d(x, weight, bias, stride, groups=groups)
        return y.clamp_(0, 6) if active else y

    def _dense(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self._weights[f"{name}.weight"], self._weights[f"{name}.bias"])


def opened(picture: bytes) -> Image.Image:
    """Decode a picture, transparent parts on white.

    Raises:
        OSError: It cannot be decoded.
    """
    with Image.open(io.BytesIO(picture)) as image:
        image.load()
        if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
            layered = image.convert("RGBA")
            white = Image.new("RGBA", layered.size, "white")
            return Image.alpha_composite(white, layered).convert("RGB")
        return image.convert("RGB")


def _pixels(picture: Image.Image) -> torch.Tensor:
    """``(3, 224, 224) float32``, 0 to 1, resized as tfjs does: bilinear with aligned corners."""
    data = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    pixels = data.view(picture.height, picture.width, 3).permute(2, 0, 1)[None].float() / 255
    if picture.size != (SIZE_PX, SIZE_PX):
        shape = (SIZE_PX, SIZE_PX)
        pixels = functional.interpolate(pixels, shape, mode="bilinear", align_corners=True)
    return pixels[0]
