"""Which ratios are put on record, and what counts as worse than them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import check


@pytest.fixture
def out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run in which every watched ratio was 2."""
    monkeypatch.setattr(check, "OUT", tmp_path / "out")
    monkeypatch.setattr(check, "RECORD", tmp_path / "ratios.json")
    check.OUT.mkdir()
    rows: dict[str, dict[str, dict[str, float]]] = {}
    for each in check.WATCHED:
        for row, value in zip(each.of, (2.0, 1.0), strict=True):
            rows.setdefault(each.benchmark, {}).setdefault(row, {})[each.figure] = value
    for benchmark, found in rows.items():
        written = [{"name": row, "figures": figures} for row, figures in found.items()]
        (check.OUT / f"{benchmark}.json").write_text(json.dumps({"rows": written}))
    return check.OUT


def run(monkeypatch: pytest.MonkeyPatch, option: str) -> int:
    monkeypatch.setattr("sys.argv", ["check", option])
    return check.main()


def test_what_was_measured_is_put_on_record_and_is_no_worse_than_itself(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(monkeypatch, "--record") == 0
    record = json.loads(check.RECORD.read_text())
    assert set(record) == {each.name for each in check.WATCHED}
    assert run(monkeypatch, "--measured") == 0
    worse = {each.name: record[each.name] * (10 if each.higher_is_better else 0.1) for each in check.WATCHED}
    check.RECORD.write_text(json.dumps(worse))
    assert run(monkeypatch, "--measured") == 1


def test_half_a_run_is_not_put_on_record(
    out: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (out / "fairness.json").unlink()
    assert run(monkeypatch, "--record") == 1
    assert not check.RECORD.exists()
    assert "wait of the small, fair over FIFO was not measured" in capsys.readouterr().out
