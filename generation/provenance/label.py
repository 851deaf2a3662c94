"""The visible label: a small badge in a corner that says that a machine drew the picture."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

#: Height of the text, as a share of the shorter side; GB 45438-2025 asks for at least 5 %.
_HEIGHT_SHARE = 0.06
_LEAST_PX = 9
_PADDING_SHARE = 0.35


def labelled(image: Image.Image, text: str = "AI", font_file: Path | None = None) -> Image.Image:
    """A picture with a badge at its lower right.

    Args:
        image: RGB or RGBA.
        text: What the badge says; other than Latin letters need a font.
        font_file: TrueType or OpenType font; Pillow's own by default.

    Raises:
        OSError: The font cannot be read.
    """
    size_px = max(_LEAST_PX, round(min(image.size) * _HEIGHT_SHARE))
    font = ImageFont.truetype(str(font_file), size_px) if font_file else ImageFont.load_default(size_px)
    layer = Image.new("RGBA", image.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(layer)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    padding = round(size_px * _PADDING_SHARE)
    width, height = right - left + 2 * padding, bottom - top + 2 * padding
    x, y = image.width - width - padding, image.height - height - padding
    draw.rounded_rectangle((x, y, x + width, y + height), radius=padding, fill=(0, 0, 0, 150))
    draw.text((x + padding - left, y + padding - top), text, font=font, fill=(255, 255, 255, 235))
    return Image.alpha_composite(image.convert("RGBA"), layer).convert(image.mode if image.mode == "RGBA" else "RGB")
