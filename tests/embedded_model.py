"""The real embedded chat model, pulled once for all test runs of a machine."""

from __future__ import annotations

import os
from pathlib import Path

from generation import catalog

#: Apart from the user's own models: tests break some on purpose.
DATA_DIR = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palaver-tests"
NAME = "smollm2-135m-instruct"


def directory() -> Path:
    """The model's files; downloads and converts them at the first call on this machine (about half a minute)."""
    location = catalog.resolve(NAME, DATA_DIR)
    if location.directory is None:
        location = catalog.pull(NAME, DATA_DIR)
    assert location.directory is not None
    return location.directory
