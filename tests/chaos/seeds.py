"""Seeds that have failed once."""

from __future__ import annotations

from pathlib import Path


def kept() -> list[int]:
    """Those of ``seeds.txt``, oldest first."""
    lines = (Path(__file__).parent / "seeds.txt").read_text().splitlines()
    return [int(line.split()[0]) for line in lines if line and not line.startswith("#")]
