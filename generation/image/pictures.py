"""Pictures as they come in and go out: encoded bytes, checked before they are unpacked, and tensors."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from generation.errors import InvalidRequestError
from generation.image.family import Size

#: What is read; everything else that Pillow knows stays closed to strangers.
FORMATS = ("PNG", "JPEG", "WEBP")
MAX_INPUT_BYTES = 32 * 2**20
#: Beyond this a small file can unpack to more memory than the machine has.
MAX_INPUT_PIXELS = 40_000_000
MEDIA_TYPE = "image/png"
#: Smoother previews are not worth the time: a level of zlib's nine.
_COMPRESS_LEVEL = 3


def open_picture(data: bytes, what: str) -> Image.Image:
    """Unpack a picture of somebody we do not know.

    Args:
        data: PNG, JPEG or WebP.
        what: How the message calls it, for example ``initial picture``.

    Raises:
        InvalidRequestError: It is broken, of another format, or too large to unpack.
    """
    if len(data) > MAX_INPUT_BYTES:
        raise InvalidRequestError(f"The {what} is larger than {MAX_INPUT_BYTES // 2**20} MB: send a smaller one.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
            if picture.width * picture.height > MAX_INPUT_PIXELS:
                raise _too_many_pixels(what)
            picture.load()
            return ImageOps.exif_transpose(picture)
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise _too_many_pixels(what) from None
    except UnidentifiedImageError:
        raise InvalidRequestError(f"The {what} is not a PNG, JPEG or WebP file.") from None
    except (OSError, SyntaxError, ValueError, EOFError):  # what Pillow's decoders raise over broken files
        raise InvalidRequestError(f"The {what} is broken or cut short: save it again and retry.") from None


def colours(picture: Image.Image) -> Tensor:
    """The pixels, ``(1, 3, height, width) float32`` in -1 to 1; what is transparent becomes white."""
    if picture.mode in {"RGBA", "LA", "PA"} or "transparency" in picture.info:
        layer = picture.convert("RGBA")
        picture = Image.new("RGBA", layer.size, "white")
        picture.alpha_composite(layer)
    values = torch.from_numpy(np.array(picture.convert("RGB")))
    return values.permute(2, 0, 1)[None].float() / 127.5 - 1


def mask(picture: Image.Image) -> Tensor:
    """The pixels of a mask, ``(1, 1, height, width) float32``: 1 where it is white, else 0."""
    values = torch.from_numpy(np.array(picture.convert("L")))
    return (values >= 128).float()[None, None]


def cover(picture: Image.Image, size: Size, *, smooth: bool = True) -> Image.Image:
    """Enlarge or shrink to cover a size, and cut what stands out, the same on both sides."""
    resampling = Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST
    if (picture.width, picture.height) == (size.width_px, size.height_px):
        return picture
    if picture.mode not in {"RGB", "RGBA", "L"}:
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    return ImageOps.fit(picture, (size.width_px, size.height_px), method=resampling)


def encode_png(pixels: Tensor) -> bytes:
    """Pixels ``(3, height, width)``, about -1 to 1, on the CPU, as PNG."""
    levels = ((pixels.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    file = io.BytesIO()
    Image.fromarray(levels.permute(1, 2, 0).contiguous().numpy()).save(file, "PNG", compress_level=_COMPRESS_LEVEL)
    return file.getvalue()


def grid(pictures: Sequence[Tensor], longer_px: int) -> Tensor:
    """Several pictures of one size as one, in as square a grid as there is.

    Args:
        pictures: Each ``(3, height, width)``.
        longer_px: Longest side of the result; smaller pictures are not enlarged.
    """
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    height, width = pictures[0].shape[-2:]
    shrink = min(1.0, longer_px / (max(columns * width, rows * height)))
    if shrink < 1.0:
        small = (max(1, int(height * shrink)), max(1, int(width * shrink)))
        pictures = [F.interpolate(picture[None], small, mode="area")[0] for picture in pictures]
        height, width = small
    sheet = torch.ones(3, rows * height, columns * width)
    for index, picture in enumerate(pictures):
        top, left = index // columns * height, index % columns * width
        sheet[:, top : top + height, left : left + width] = picture
    return sheet


def _too_many_pixels(what: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"The {what} has more than {MAX_INPUT_PIXELS // 1_000_000} million pixels: send a smaller one."
    )
