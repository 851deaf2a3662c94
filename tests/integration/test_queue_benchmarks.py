from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.valkey import ValkeyProcess


@pytest.mark.parametrize(
    ("module", "size", "columns"),
    [
        ("queue_pops", ("--jobs", "3000"), {"pops_per_s", "longest_pop_ms", "server_us_per_job"}),
        ("limit_checks", ("--checks", "500"), {"checks_per_s", "p50_us", "tenant_left_of_95"}),
    ],
)
def test_a_benchmark_runs_and_writes_its_figures(
    server: ValkeyProcess, tmp_path: Path, module: str, size: tuple[str, str], columns: set[str]
) -> None:
    target = tmp_path / "figures.json"
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{module}", *size, "--redis", server.url, "--json", str(target)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    ours = json.loads(target.read_text())["rows"][0]["figures"]
    assert columns <= set(ours)
    assert all(value > 0 for value in ours.values())
    assert "goal" in done.stdout
