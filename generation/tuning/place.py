"""Where adapters lie, told without loading anything."""

from __future__ import annotations

from pathlib import Path

FILE = "adapters.sqlite"


def store_url(configured: str | None, data_dir: Path) -> str:
    """SQLAlchemy's URL: of the configured database, else of a file of the data directory."""
    return configured or f"sqlite:///{data_dir / FILE}"


def is_there(url: str) -> bool:
    """Whether anything can lie there: a file that nobody has made holds nothing."""
    if not url.startswith("sqlite"):
        return True
    return Path(url.partition(":///")[2].partition("?")[0]).is_file()
