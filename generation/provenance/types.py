"""Where a picture came from, as it is written into it and read from it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

#: Source: IPTC NewsCodes, "Digital Source Type".
TRAINED_ALGORITHMIC_MEDIA = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"

#: Key of the invisible mark, known to everybody, so that everybody can tell; an operator may set another.
PUBLIC_KEY = "palaver"

Origin = Literal["ours", "generated", "not ours"]


@dataclass(frozen=True, slots=True)
class Provenance:
    """What a picture says of itself.

    Args:
        job_id: Which job drew it.
        model: What drew it.
        prompt_sha256: Hash of the prompt, in hex: proves which prompt it was to whoever has it.
        created_at_s: Unix time.
        producer: Who runs the service.
    """

    job_id: str
    model: str
    prompt_sha256: str
    created_at_s: float
    producer: str = "Palaver"


@dataclass(frozen=True, slots=True)
class Report:
    """What could be found out about a picture.

    Args:
        origin: ``ours`` by its invisible mark or its metadata; ``generated`` if somebody else's metadata says that a
            machine made it; else ``not ours``.
        watermark_score: Of the invisible mark, in standard deviations; see ``watermark.DETECTED``.
        watermarked: Whether the invisible mark is there.
        provenance: What its metadata says, if that is in our form.
        source_type: The IPTC digital source type in its metadata, if any.
        credentials: What its C2PA credentials say: who signed and whether that holds; None without any.
    """

    origin: Origin
    watermark_score: float
    watermarked: bool
    provenance: Provenance | None = None
    source_type: str | None = None
    credentials: str | None = None


@dataclass(frozen=True, slots=True)
class TextDetection:
    """Whether a text has the statistical mark.

    Args:
        score: Standard deviations above what texts without it show.
        found: Whether that is enough to be sure.
        tokens: How long the text is; short ones tell nothing.
    """

    score: float
    found: bool
    tokens: int


def hash_prompt(prompt: str) -> str:
    """Hash of a prompt, in hex."""
    return hashlib.sha256(prompt.encode()).hexdigest()
