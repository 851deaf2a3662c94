"""The benchmark of a GPU runs to its end: here on a CPU, with sizes that say nothing about speed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import gpu


@pytest.mark.model
@pytest.mark.timeout(300)
def test_it_runs_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TOKENS", 3)
    monkeypatch.setattr(gpu, "STEPS", 2)
    monkeypatch.setattr(gpu, "limits", lambda _: (1e9, 1e10))
    arguments = ["gpu", "--device", "cpu", "--users", "2", "--pictures", "1", "--json", str(tmp_path / "gpu.json")]
    monkeypatch.setattr("sys.argv", arguments)
    gpu.main()
    written = json.loads((tmp_path / "gpu.json").read_text())
    rows = written["rows"] if isinstance(written, dict) else written
    assert [row["name"] for row in rows] == ["tokens, 2 users", "pictures, 1 at once, 2 steps"]
    assert all(value > 0 for row in rows for value in row["figures"].values())


def test_without_a_gpu_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("sys.argv", ["gpu"])
    with pytest.raises(SystemExit) as end:
        gpu.main()
    assert end.value.code == 0
    assert "no GPU here" in capsys.readouterr().out
