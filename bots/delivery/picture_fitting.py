"""Pictures made small enough for a place that limits the size of files."""

from __future__ import annotations

import io
from dataclasses import replace

from bots.delivery.content import Picture

_QUALITIES = (90, 75, 50)
_SHRINK = (1.0, 0.5, 0.25)


def fit(picture: Picture, limit_bytes: int) -> Picture | None:
    """Recompress a picture that is too large.

    Args:
        picture: As it was drawn.
        limit_bytes: Largest file.

    Returns:
        The picture itself if it fits, a smaller one if that can be made here, else None.
    """
    if len(picture.data) <= limit_bytes:
        return picture
    try:
        from PIL import Image  # only where the image extra is installed, and only when needed
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(picture.data)) as opened:
            image = opened.convert("RGB")
    except (OSError, ValueError):
        return None
    for share in _SHRINK:
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        for quality in _QUALITIES:
            output = io.BytesIO()
            image.resize(size).save(output, "WEBP", quality=quality)
            if output.tell() <= limit_bytes:
                return replace(picture, name=picture.name.rpartition(".")[0] + ".webp", data=output.getvalue())
    return None
