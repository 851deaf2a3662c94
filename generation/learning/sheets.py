"""Sheets of pictures as PNG, for the eye."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from torch import Tensor

CAPTION_PX = 14


def write(pictures: Tensor, columns: int, path: Path, captions: Sequence[str] = (), scale: int = 2) -> None:
    """Write pictures row by row.

    Args:
        pictures: ``(pictures, 3, height, width) float32``, -1 to 1; what is outside is clamped.
        columns: Pictures in a row.
        path: The PNG; replaced when complete.
        captions: A line below each picture, cut to its width; letters beyond ASCII are shown as ``?``.
        scale: Enlargement, whole.
    """
    values = ((pictures.float().clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    values = values.repeat(scale, axis=1).repeat(scale, axis=2)
    count, height, width = values.shape[:3]
    cell_height = height + (CAPTION_PX if captions else 0)
    sheet = Image.new("RGB", (columns * width, -(-count // columns) * cell_height), "white")
    draw = ImageDraw.Draw(sheet)
    for position in range(count):
        left, top = position % columns * width, position // columns * cell_height
        sheet.paste(Image.fromarray(np.ascontiguousarray(values[position])), (left, top))
        if captions:
            text = captions[position].encode("ascii", "replace").decode()[: width // 6]
            draw.text((left + 2, top + height), text, fill="black")
    partial = path.with_suffix(".partial")
    sheet.save(partial, format="PNG")
    partial.replace(path)
