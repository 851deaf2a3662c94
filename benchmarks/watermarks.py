"""The invisible mark against existing libraries: how often it is found after what happens to pictures.

    python -m benchmarks.watermarks [--quick] [--pictures N] [--sizes 256 512] [--json FILE]

Pictures are openclipart drawings on white, as the image model draws them. invisible-watermark and blind-watermark take
part where they are installed: ``pip install --no-deps invisible-watermark blind-watermark`` with
opencv-python-headless and PyWavelets; they carry 32 bits and count as found with at least 27 of them right, which
chance does once in 10,000.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.moderation_sets import pictures
from generation.moderation.nsfw import opened
from generation.provenance import watermark

BITS = [1, 0, 1, 1, 0, 0, 1, 0] * 4
LEAST_RIGHT = 27
#: Libraries are slow; this many pictures show enough.
MOST_FOR_LIBRARIES = 100


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    with Image.open(out) as saved:
        return saved.convert("RGB")


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2), Image.Resampling.BICUBIC)


def screenshot(image: Image.Image) -> Image.Image:
    """Shown larger, cut by a pixel, saved as JPEG, and made smaller again by a chat platform."""
    large = image.resize((round(image.width * 1.25), round(image.height * 1.25)), Image.Resampling.BILINEAR)
    shown = jpeg(large.crop((1, 1, large.width - 1, large.height - 1)), 80)
    return jpeg(shown.resize((round(shown.width * 0.83), round(shown.height * 0.83)), Image.Resampling.BICUBIC), 85)


TREATMENTS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "JPEG 75": lambda image: jpeg(image, 75),
    "half size": half,
    "screenshot": screenshot,
    "JPEG 50": lambda image: jpeg(image, 50),
    "half, JPEG 75": lambda image: jpeg(half(image), 75),
}


@dataclass(frozen=True)
class Line:
    """How often one mark is found, in pictures of one size."""

    name: str
    size_px: int
    count: int
    psnr_db: float
    embed_ms: float
    false_positives: int
    found: dict[str, float]


@dataclass(frozen=True)
class Mark:
    """One way to mark."""

    name: str
    embed: Callable[[Image.Image], Image.Image]
    detect: Callable[[Image.Image, int], bool]


def drawings(count: int, size_px: int) -> list[Image.Image]:
    """Drawings in the middle of a white square; broken files are left out."""
    made: list[Image.Image] = []
    for file in pictures(2 * count):
        if len(made) == count:
            break
        with contextlib.suppress(OSError, ValueError, Image.DecompressionBombError):
            image = opened(file.read_bytes())
            image.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
            canvas = Image.new("RGB", (size_px, size_px), "white")
            canvas.paste(image, ((size_px - image.width) // 2, (size_px - image.height) // 2))
            made.append(canvas)
    return made


def measure(mark: Mark, images: list[Image.Image]) -> Line:
    size_px = images[0].width
    started = time.perf_counter()
    marked = [mark.embed(image) for image in images]
    embed_ms = (time.perf_counter() - started) / len(images) * 1e3
    psnr = [
        10 * math.log10(255**2 / max(1e-9, float(np.mean((np.asarray(a, float) - np.asarray(b, float)) ** 2))))
        for a, b in zip(images, marked, strict=True)
    ]
    found = {
        name: sum(mark.detect(treat(image), size_px) for image in marked) / len(marked)
        for name, treat in TREATMENTS.items()
    }
    wrong = sum(mark.detect(treat(image), size_px) for image in images for treat in list(TREATMENTS.values())[:4])
    return Line(mark.name, size_px, len(images), float(np.median(psnr)), embed_ms, wrong, found)


def libraries() -> list[Mark]:
    """Those that are installed."""
    found: list[Mark] = []
    if importlib.util.find_spec("imwatermark"):
        from imwatermark import WatermarkDecoder, WatermarkEncoder

        for method in ("dwtDct", "dwtDctSvd"):

            def embed(image: Image.Image, method: str = method) -> Image.Image:
                encoder = WatermarkEncoder()
                encoder.set_watermark("bits", BITS)
                return _rgb(encoder.encode(_bgr(image), method))

            def detect(image: Image.Image, size_px: int, method: str = method) -> bool:
                resized = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
                return _right(WatermarkDecoder("bits", 32).decode(_bgr(resized), method))

            found.append(Mark(f"invisible-watermark {method}", embed, detect))
    if importlib.util.find_spec("blind_watermark"):
        found.append(Mark("blind-watermark", _blind_embed, _blind_detect))
    return found


def _blind_embed(image: Image.Image) -> Image.Image:
    from blind_watermark import WaterMark

    marker = WaterMark(password_img=1, password_wm=1)
    marker.read_img(img=_bgr(image).astype(np.float32))
    marker.read_wm(BITS, mode="bit")
    return _rgb(np.clip(marker.embed(), 0, 255))


def _blind_detect(image: Image.Image, size_px: int) -> bool:
    from blind_watermark import WaterMark

    resized = image.resize((size_px, size_px), Image.Resampling.BICUBIC)
    marker = WaterMark(password_img=1, password_wm=1)
    with np.errstate(all="ignore"):
        return _right(marker.extract(embed_img=_bgr(resized).astype(np.float32), wm_shape=32, mode="bit") > 0.5)


def _right(bits: Any) -> bool:
    return int(np.sum(np.asarray(bits).astype(int) == np.asarray(BITS))) >= LEAST_RIGHT


def _bgr(image: Image.Image) -> Any:
    return np.asarray(image)[:, :, ::-1].copy()


def _rgb(pixels: Any) -> Image.Image:
    return Image.fromarray(np.asarray(pixels).astype(np.uint8)[:, :, ::-1].copy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures, one size")
    parser.add_argument("--pictures", type=int, default=500)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    given = parser.parse_args()
    if given.quick:
        given.pictures, given.sizes = 60, [256]
    ours = Mark("ours", watermark.embed, lambda image, _: watermark.detect(image).found)
    lines = []
    print(f"{'':<30}{'PSNR dB':>9}{'ms':>6}{'wrong':>7}" + "".join(f"{name:>15}" for name in TREATMENTS))
    for size_px in given.sizes:
        images = drawings(given.pictures, size_px)
        for mark in (ours, *libraries()):
            line = measure(mark, images if mark is ours else images[:MOST_FOR_LIBRARIES])
            lines.append(line)
            cells = "".join(f"{share:>15.1%}" for share in line.found.values())
            name = f"{line.name}, {line.count} of {size_px} px"
            print(f"{name:<30}{line.psnr_db:>9.1f}{line.embed_ms:>6.0f}{line.false_positives:>7}{cells}", flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(line) for line in lines], indent=2))


if __name__ == "__main__":
    main()
