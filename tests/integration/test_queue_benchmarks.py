from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import check, table
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


def test_the_check_fails_on_what_became_worse_and_on_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    record = json.loads(check.RECORD.read_text())
    assert check.compare(record, record) == []
    better = {each.name: record[each.name] * (2 if each.higher_is_better else 0.5) for each in check.WATCHED}
    assert check.compare(better, record) == []
    worse = {each.name: record[each.name] * (0.3 if each.higher_is_better else 3) for each in check.WATCHED}
    assert len(check.compare(worse, record)) == len(check.WATCHED)
    assert check.compare({}, record), "what was not measured is no success"
    assert "WORSE" in capsys.readouterr().out


def test_all_figures_make_one_table_a_csv_and_a_plot(tmp_path: Path) -> None:
    rows = [{"name": name, "figures": {"jobs/s": value}} for name, value in (("ours", 10.0), ("theirs <x>", 5.0))]
    (tmp_path / "queue.json").write_text(json.dumps({"title": "t", "rows": rows}))
    (tmp_path / "chat.json").write_text(json.dumps([{"name": "ours", "users": 8, "tokens_per_s": 3.0}]))
    table.main(tmp_path)
    assert "queue,theirs <x>,jobs/s,5.0,0.5" in (tmp_path / "table.csv").read_text()
    assert "theirs &lt;x&gt;" in (tmp_path / "ratios.svg").read_text()
