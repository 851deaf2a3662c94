"""An invisible mark in a picture's pixels that survives recompression and scaling, and says yes or no.

The luminance is brought to 128 x 128 whatever the picture's size, so that scaling changes nothing. Its cosine transform
is whitened, and a secret sequence of signs over its lower middle frequencies is correlated with it: in pictures without
the mark that is a standard normal number, in marked ones it is far above. Marking raises it in a closed loop, after
clipping and rounding, and no further than needed; where a picture has structure the change is larger than where it is
flat. One sequence stands for yes; there is no room for more in small pictures without becoming visible.

Source: Cox et al., "Secure Spread Spectrum Watermarking for Multimedia", 1997; Malvar and Florencio, "Improved Spread
Spectrum", 2003 (the host's own correlation is compensated).
"""

from __future__ import annotations

import functools
import hashlib
import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from generation.provenance.types import PUBLIC_KEY

#: A picture without the mark is above this once in 100,000; ``benchmarks/watermarks.py`` counts.
DETECTED = 4.0
GRID_PX = 128
#: What marking aims at after JPEG at quality 75, how much it may change a picture, and in how many steps.
_TARGET = 7.5
_MOST_CHANGE = 4.5
_STEPS = 24
_STRIDE = 3.0
#: Frequencies of the mark in luma and chroma: above the picture's broad shapes, below what JPEG and halving take away.
_LOWEST, _HIGHEST = 3, (44, 26, 26)
_ROWS = max(_HIGHEST) + 4
#: What JPEG rounds away in a flat picture: the mark is measured against at least this, in units of the transform.
_FLOOR = np.array([6.0, 20.0, 20.0], np.float32)
_CLIPPED = 2.5
#: Of an empty picture, whose noise is none.
_LEAST_NORM = 8.0
#: How visible a change of luma and of both chroma planes is: the eye sees fine changes of blue worst.
_VISIBLE = np.array([1.0, 0.4, 0.5], np.float32)
#: ITU-R BT.601, full range, as JPEG has it.
_TO_PLANES = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]], np.float32)
_TO_COLOURS = np.array([[1, 0, 1.402], [1, -0.344136, -0.714136], [1, 1.772, 0]], np.float32)

Pixels = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Detection:
    """Whether a picture has the mark.

    Args:
        score: Standard deviations above what pictures without it show.
        found: Whether that is enough to be sure.
    """

    score: float
    found: bool


def embed(image: Image.Image, key: str = PUBLIC_KEY) -> Image.Image:
    """A picture with the mark.

    Args:
        image: RGB or RGBA; at least 32 px on each side make it worthwhile.
        key: Which sequence of signs.

    Returns:
        A picture of the same size and mode.
    """
    mode = image.mode if image.mode in ("RGB", "RGBA") else "RGB"
    pixels = np.asarray(image.convert(mode), np.float32)
    colours = pixels[..., :3]
    height, width = colours.shape[:2]
    cover = _cover(_planes(colours)[0])
    change = np.zeros((3, height, width), np.float32)
    marked = colours
    for _ in range(_STEPS):
        score, direction = _score_and_direction(_grids(marked), key)
        if score >= _TARGET and _score_and_direction(_grids(_worn(marked)), key)[0] >= _TARGET:
            break
        change += np.stack([_resized(plane, width, height) for plane in direction]) * cover * _STRIDE
        amount = float(np.sqrt(_VISIBLE @ np.mean(change**2, axis=(1, 2))))
        if amount > _MOST_CHANGE:
            change *= _MOST_CHANGE / amount
        marked = np.rint(np.clip(colours + np.moveaxis(change, 0, -1) @ _TO_COLOURS.T, 0, 255))
    out = np.concatenate([marked, pixels[..., 3:]], axis=-1)
    return Image.fromarray(out.astype(np.uint8), mode)


def detect(image: Image.Image, key: str = PUBLIC_KEY) -> Detection:
    """Whether a picture has the mark.

    Args:
        image: Any picture; transparent parts count as white.
        key: Which sequence of signs.
    """
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        layered = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layered.size, "white"), layered)
    score, _ = _score_and_direction(_grids(np.asarray(image.convert("RGB"), np.float32)), key)
    return Detection(score, score >= DETECTED)


def _score_and_direction(grids: Pixels, key: str) -> tuple[float, Pixels]:
    """The correlation, and the change of the grids that raises it by about one: both ``(3, 128, 128)``."""
    cosine = _cosines()
    band, signs = _band(), _signs(key)
    spectra = cosine @ grids @ cosine.T
    floor = _FLOOR[:, None, None]
    local = np.sqrt(np.stack([_smoothed(spectrum**2) for spectrum in spectra]) + floor**2)
    white = np.clip(spectra / local, -_CLIPPED, _CLIPPED)[band]
    norm = max(float(np.sqrt(np.sum(white**2))), _LEAST_NORM)
    score = float(white @ signs) / norm
    # Where the picture is weak, and where the eye sees little, the same change is worth more.
    shape = (1 / (local * _VISIBLE[:, None, None]))[band]
    towards = np.zeros_like(spectra)
    towards[band] = signs * shape * (norm / float(np.sum(shape / local[band])))
    return score, (cosine.T @ towards @ cosine).astype(np.float32)


def _worn(colours: Pixels) -> Pixels:
    """The picture after JPEG at quality 75."""
    file = io.BytesIO()
    Image.fromarray(colours.astype(np.uint8)).save(file, "JPEG", quality=75)
    with Image.open(file) as worn:
        return np.asarray(worn.convert("RGB"), np.float32)


def _cover(luminance: Pixels) -> Pixels:
    """How much a place hides: from about a half where it is flat to two where it has structure."""
    height, width = luminance.shape
    image = Image.fromarray(luminance)
    small = (max(1, width // 4), max(1, height // 4))
    mean = image.resize(small, Image.Resampling.BOX)
    square = Image.fromarray(luminance**2).resize(small, Image.Resampling.BOX)
    deviation = np.sqrt(np.maximum(0, np.asarray(square) - np.asarray(mean) ** 2))
    cover = np.clip(0.6 + deviation / 10, 0.6, 2.0).astype(np.float32)
    return np.asarray(Image.fromarray(cover).resize((width, height), Image.Resampling.BILINEAR))


def _planes(colours: Pixels) -> Pixels:
    """Luma and both chroma planes, ``(3, height, width)``."""
    return np.ascontiguousarray(np.moveaxis(colours @ _TO_PLANES.T, -1, 0))


def _grids(colours: Pixels) -> Pixels:
    """The planes at 128 x 128."""
    return np.stack([_resized(plane, GRID_PX, GRID_PX) for plane in _planes(colours)])


def _resized(plane: Pixels, width: int, height: int) -> Pixels:
    if plane.shape == (height, width):
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC), np.float32)


def _smoothed(plane: Pixels) -> Pixels:
    """Mean over 5 x 5 neighbours."""
    for axis in (0, 1):
        width = [(3, 2) if each == axis else (0, 0) for each in (0, 1)]
        sums = np.cumsum(np.pad(plane, width, mode="symmetric"), axis=axis, dtype=np.float64)
        ahead = np.take(sums, range(5, sums.shape[axis]), axis=axis)
        behind = np.take(sums, range(sums.shape[axis] - 5), axis=axis)
        plane = ((ahead - behind) / 5).astype(np.float32)
    return plane


@functools.cache
def _cosines() -> Pixels:
    """The lowest rows of the orthonormal cosine transform (type II) as a matrix."""
    frequency = np.arange(_ROWS)[:, None]
    place = np.arange(GRID_PX)[None, :]
    matrix = np.cos(np.pi * (place + 0.5) * frequency / GRID_PX) * np.sqrt(2 / GRID_PX)
    matrix[0] /= np.sqrt(2)
    cosines: Pixels = matrix.astype(np.float32)
    return cosines


@functools.cache
def _band() -> NDArray[np.bool_]:
    down, across = np.meshgrid(np.arange(_ROWS), np.arange(_ROWS), indexing="ij")
    radius = np.hypot(down, across)
    return np.stack([(radius >= _LOWEST) & (radius < highest) for highest in _HIGHEST])


@functools.lru_cache(maxsize=16)
def _signs(key: str) -> Pixels:
    """The secret sequence: a key's hash, stretched."""
    count = int(_band().sum())
    stream = hashlib.shake_256(f"palaver-watermark-1\0{key}".encode()).digest((count + 7) // 8)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8))[:count]
    return bits.astype(np.float32) * 2 - 1
