"""Marking pictures as generated, and finding out later where a picture came from."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from generation.errors import InvalidRequestError
from generation.provenance import metadata
from generation.provenance.credentials import Signer, read_credentials
from generation.provenance.label import labelled
from generation.provenance.types import PUBLIC_KEY, Origin, Provenance, Report
from generation.provenance.watermark import DETECTED, detect, embed

_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
#: What people send around. Other formats run programs of their own, or are no pictures of one frame.
_READ = (*_MEDIA_TYPES, "GIF", "BMP", "TIFF", "AVIF")
#: How much a JPEG or WebP may lose when it is written again.
_QUALITY = 95
_MOST_PIXELS = 64_000_000


@dataclass(frozen=True, slots=True)
class Marking:
    """How pictures are marked.

    Args:
        watermark: Whether the invisible mark is put in.
        key: Its key.
        visible_label: Text of the visible label; empty for none.
        label_font: Font of that text.
        signer: Signs content credentials; None for none.
    """

    watermark: bool = True
    key: str = PUBLIC_KEY
    visible_label: str = ""
    label_font: Path | None = None
    signer: Signer | None = None


def mark(picture: bytes, provenance: Provenance, marking: Marking | None = None) -> bytes:
    """A picture that says that it was generated, in every way that is configured.

    Args:
        picture: Encoded as PNG, JPEG or WebP.
        provenance: What it says.
        marking: How; the invisible mark and metadata by default.

    Returns:
        The marked picture, in the same format.

    Raises:
        InvalidRequestError: It is no such picture.
        GenerationError: It cannot be signed.
    """
    marking = marking or Marking()
    image, image_format = _opened(picture)
    if image.mode not in ("RGB", "RGBA"):
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    if marking.visible_label:
        image = labelled(image, marking.visible_label, marking.label_font)
    if marking.watermark:
        image = embed(image, marking.key)
    arguments = metadata.save_arguments(provenance, image_format)
    if image_format != "PNG":
        arguments["quality"] = _QUALITY
    if image_format == "JPEG":
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, image_format, **arguments)
    if marking.signer is None:
        return out.getvalue()
    return marking.signer.sign(out.getvalue(), _MEDIA_TYPES[image_format], provenance)


def verify(picture: bytes, keys: tuple[str, ...] = (PUBLIC_KEY,)) -> Report:
    """Find out where a picture came from.

    Args:
        picture: Encoded.
        keys: Of the invisible marks that count as ours.

    Raises:
        InvalidRequestError: It is no picture, or too large to look at.
    """
    image, image_format = _opened(picture)
    found = max((detect(image, key) for key in keys), key=lambda detection: detection.score)
    provenance, source_type = metadata.read(image)
    origin: Origin = "not ours"
    if found.found or provenance is not None:
        origin = "ours"
    elif source_type is not None and "lgorithmic" in source_type:
        origin = "generated"
    credentials = read_credentials(picture, _MEDIA_TYPES.get(image_format, "image/png"))
    return Report(origin, found.score, found.found, provenance, source_type, credentials)


def told(report: Report) -> list[str]:
    """What a report says, in sentences, the conclusion first."""
    lines = {
        "ours": ["This picture was generated here."],
        "generated": ["This picture says that a machine generated it, but not here."],
        "not ours": ["Not ours: there is no trace that this picture was generated here."],
    }[report.origin]
    sure = "found" if report.watermarked else "not found"
    lines.append(f"Invisible mark: {sure} (score {report.watermark_score:.1f}, sure from {DETECTED:.1f}).")
    if report.origin == "ours" and not report.watermarked:
        lines[0] = "This picture's metadata says that it was generated here; metadata can be forged."
    if report.provenance is not None:
        lines.append(f"Job: {report.provenance.job_id}. Model: {report.provenance.model}.")
        lines.append(f"SHA-256 of the prompt: {report.provenance.prompt_sha256}.")
    elif report.source_type is not None:
        lines.append(f"Digital source type: {report.source_type}.")
    if report.credentials is not None:
        lines.append(f"Content credentials: {report.credentials}.")
    return lines


def _opened(picture: bytes) -> tuple[Image.Image, str]:
    try:
        image = Image.open(io.BytesIO(picture), formats=_READ)
        if image.width * image.height > _MOST_PIXELS:
            raise InvalidRequestError(f"The picture is too large: at most {_MOST_PIXELS / 1e6:.0f} megapixels.")
        image.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError, ValueError):
        raise InvalidRequestError("This is no picture that can be read. PNG, JPEG and WebP can.") from None
    image_format = image.format or "PNG"
    return image, image_format if image_format in _MEDIA_TYPES else "PNG"
