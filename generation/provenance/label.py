"""The visible label: a small badge in a corner that says that a machine drew the picture."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from generation.errors import GenerationError

_LOG = logging.getLogger("palaver.provenance")

#: Height of the text, as a share of the shorter side; GB 45438-2025 asks for at least 5 %.
_HEIGHT_SHARE = 0.06
_LEAST_PX = 9
_PADDING_SHARE = 0.35


def labelled(image: Image.Image, text: str = "AI", font_file: Path | None = None) -> Image.Image:
    """A picture with a badge at its lower right.

    Args:
        image: RGB or RGBA.
        text: What the badge says; letters that the font does not have are left out, and ``AI`` stands for nothing left.
        font_file: TrueType or OpenType font; Pillow's own by default.

    Raises:
        OSError: The font cannot be read.
    """
    size_px = max(_LEAST_PX, round(min(image.size) * _HEIGHT_SHARE))
    font = _font(str(font_file or ""), size_px)
    text = _drawable(text, str(font_file or ""), size_px)
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    padding = round(size_px * _PADDING_SHARE)
    width, height = right - left + 2 * padding, bottom - top + 2 * padding
    x, y = image.width - width - padding, image.height - height - padding
    draw.rounded_rectangle((x, y, x + width, y + height), radius=padding, fill=(0, 0, 0, 150))
    draw.text((x + padding - left, y + padding - top), text, font=font, fill=(255, 255, 255, 235))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert(image.mode if image.mode == "RGBA" else "RGB")


def check_font(file: Path | None) -> None:
    """See at start that a font can be read.

    Raises:
        GenerationError: It cannot.
    """
    try:
        _font(str(file or ""), _LEAST_PX)
    except OSError:
        raise GenerationError(f"The font of the visible label cannot be read: {file}.") from None


@functools.lru_cache(maxsize=32)
def _font(file: str, size_px: int) -> Any:
    return ImageFont.truetype(file, size_px) if file else ImageFont.load_default(size_px)


@functools.lru_cache(maxsize=256)
def _drawable(text: str, file: str, size_px: int) -> str:
    """What of a text the font can draw: a box in place of a letter is no label."""
    font = _font(file, size_px)
    box = bytes(font.getmask("\U0010fffe"))
    kept = "".join(letter for letter in text if letter.isspace() or bytes(font.getmask(letter)) != box).strip()
    if kept != text.strip():
        _LOG.warning("The font of the visible label lacks letters of %r: set provenance.label_font.", text)
    return kept or "AI"
