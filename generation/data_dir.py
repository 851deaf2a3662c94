"""Where this product keeps what it has: models, training, and the embedded server's file."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """Where state lives unless ``PALAVER_DATA_DIR`` says otherwise: ``$XDG_DATA_HOME/palaver``."""
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "palaver"
