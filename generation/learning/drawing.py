"""Scenes to pixels: icons rasterised by resvg, composed in numpy."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
import resvg_py
from numpy.typing import NDArray
from PIL import Image

from generation.learning.concepts import Icon
from generation.learning.scenes import CANVAS_PX, Placement, Scene

# An icon whose pixels hardly differ from each other draws nothing that could be learned.
LEAST_CONTRAST = 8.0
# Of the visible pixels, this share must take the new colour: a cat with blue eyes is not a blue cat.
LEAST_RECOLOURED = 0.35


def draw(scene: Scene, icons: Sequence[Icon], scale: int = 1) -> NDArray[np.uint8] | None:
    """Draw a scene.

    Args:
        scene: What to draw.
        icons: What its placements index.
        scale: Pixels for one of the scene's, each way.

    Returns:
        ``(side, side, 3) uint8`` with a side of ``CANVAS_PX * scale``, or None where an icon is blank or does not take
        the wanted colour.
    """
    canvas = np.empty((CANVAS_PX * scale, CANVAS_PX * scale, 3), dtype=np.float32)
    canvas[:] = scene.background
    for small in scene.placements:
        placement = small.enlarged(scale)
        layer: NDArray[np.uint8] | None = rasterise(icons[placement.icon].svg, placement.size_px)
        if placement.hue_deg is not None and layer is not None:
            layer = recolour(layer, placement.hue_deg)
        if layer is None:
            return None
        _composite(canvas, layer, placement)
    picture = canvas.round().astype(np.uint8)
    return picture if picture.std() >= LEAST_CONTRAST else None


def rasterise(svg: str, size_px: int) -> NDArray[np.uint8] | None:
    """Draw an SVG on a transparent square.

    Returns:
        ``(size_px, size_px, 4) uint8``, straight alpha; None where the document cannot be drawn.
    """
    try:
        content = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size_px, height=size_px))
    except ValueError:
        return None
    with Image.open(io.BytesIO(content)) as image:
        square = image.convert("RGBA")
    if square.size != (size_px, size_px):  # resvg keeps the aspect ratio of oblong documents
        padded = Image.new("RGBA", (size_px, size_px))
        padded.paste(square, ((size_px - square.width) // 2, (size_px - square.height) // 2))
        square = padded
    return np.asarray(square)


def recolour(rgba: NDArray[np.uint8], hue_deg: float) -> NDArray[np.uint8] | None:
    """Turn the most common hue of an icon, and the hues near it, to another; light and shade stay.

    Args:
        rgba: ``(size, size, 4) uint8``.
        hue_deg: The new hue, 0 to 360.

    Returns:
        The same shape; None where too little of the icon has that common hue.
    """
    hsv = np.asarray(Image.fromarray(rgba[..., :3]).convert("HSV")).copy()
    hue, saturation, visible = hsv[..., 0].astype(np.int32), hsv[..., 1], rgba[..., 3] > 128
    colourful = visible & (saturation > 60)
    if not colourful.any():
        return None
    histogram = np.bincount(hue[colourful] * 24 // 256, weights=saturation[colourful], minlength=24)
    centre = (int(np.argmax(histogram)) * 256 + 128) // 24
    distance = np.abs((hue - centre + 128) % 256 - 128)
    chosen = colourful & (distance <= 28)
    if chosen.sum() < LEAST_RECOLOURED * visible.sum():
        return None
    hsv[..., 0][chosen] = round(hue_deg / 360 * 255)
    painted = np.asarray(Image.fromarray(hsv, mode="HSV").convert("RGB"))
    return np.dstack([painted, rgba[..., 3]])


def _composite(canvas: NDArray[np.float32], layer: NDArray[np.uint8], placement: Placement) -> None:
    """Lay a layer over the canvas in place (Porter and Duff, "Compositing Digital Images", 1984: over)."""
    left, top = max(placement.left_px, 0), max(placement.top_px, 0)
    right = min(placement.left_px + placement.size_px, canvas.shape[1])
    bottom = min(placement.top_px + placement.size_px, canvas.shape[0])
    part = layer[
        top - placement.top_px : bottom - placement.top_px, left - placement.left_px : right - placement.left_px
    ]
    alpha = part[..., 3:].astype(np.float32) / 255
    under = canvas[top:bottom, left:right]
    canvas[top:bottom, left:right] = part[..., :3] * alpha + under * (1 - alpha)
