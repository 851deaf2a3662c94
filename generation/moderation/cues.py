"""Turns of phrase that prompt injections and jailbreaks are made of: what the detector is asked about.

By itself the embedded detector takes much small talk for an attack, so it is only asked where one of these occurs.
"""

from __future__ import annotations

import functools
import re
from importlib import resources

from generation.moderation.expressions import compiled_pattern

#: Below this much evidence the detector is not asked.
LEAST_EVIDENCE = 1.5
_READ_CHARS = 8_000
_GROUP = re.compile(r"\[(\w+) ([\d.]+)\]")


@functools.cache
def cues() -> tuple[tuple[float, str], ...]:
    """Weight and expression of each group of cues; of a group one match counts."""
    text = resources.files("generation.moderation").joinpath("lists", "cues.txt").read_text("utf-8")
    groups: list[tuple[float, list[str]]] = []
    for line in text.splitlines():
        if header := _GROUP.fullmatch(line):
            groups.append((float(header[2]), []))
        elif line and not line.startswith("# "):
            groups[-1][1].append(line)
    return tuple((weight, "|".join(expressions)) for weight, expressions in groups)


def evidence(text: str) -> float:
    """How much in a text points to an injection: the sum of its cues' weights.

    Args:
        text: Folded, see ``spelling.fold``; the first 8,000 characters are read.
    """
    beginning = text[:_READ_CHARS]
    return sum(weight for weight, pattern in cues() if compiled_pattern(pattern).search(beginning))
