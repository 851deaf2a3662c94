"""Pictures whose origin is asked about."""

from __future__ import annotations

import functools
import io

import numpy as np
from PIL import Image

from generation.provenance.marking import mark
from generation.provenance.types import Provenance, hash_prompt

JOB = "guild-1__k7"


@functools.cache
def theirs() -> bytes:
    """Nobody's."""
    y, x = np.mgrid[0:256, 0:256]
    pixels = np.stack([x, y, (x + y) // 2], axis=-1).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


@functools.cache
def ours() -> bytes:
    """Drawn here, as far as it says and carries."""
    return mark(theirs(), Provenance(JOB, "palaver-icons", hash_prompt("a fox"), 1_700_000_000.0, producer="Palaver"))
