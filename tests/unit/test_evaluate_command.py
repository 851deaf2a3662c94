"""`palaver evaluate image` is a process of the models' floor under the command's own name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def _evaluate(data_dir: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PALAVER_DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bots.cli", "evaluate", "image", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_a_directory_without_a_model_is_one_clear_line_and_a_failure(tmp_path: Path) -> None:
    done = _evaluate(tmp_path, "--model", str(tmp_path / "none"))
    assert done.returncode == 1
    assert f"Error: There is no exported image model in {tmp_path / 'none'}" in done.stderr
    assert "Traceback" not in done.stderr


def test_its_help_names_the_command_that_was_typed(tmp_path: Path) -> None:
    done = _evaluate(tmp_path, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: palaver evaluate image")
    assert "--card" in done.stdout
