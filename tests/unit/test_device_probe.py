"""Devices are counted as CUDA counts them, without a model library."""

from pathlib import Path

import pytest

from workers import device_probe


@pytest.fixture
def gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with three GPUs, as its nvidia-smi lists them."""
    tool = tmp_path / "nvidia-smi"
    tool.write_text('#!/bin/sh\nfor i in 0 1 2; do echo "GPU $i: NVIDIA H100 (UUID: GPU-aaaa$i)"; done\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "count"), [(None, 3), ("", 0), ("-1", 0), ("1", 1), ("2,0", 2), ("0,7,1", 1), ("GPU-aaaa1", 1)]
)
@pytest.mark.usefixtures("gpus")
def test_visible_devices(visible: str | None, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_probe.cuda_count() == count
    assert device_probe.devices("auto") == ([f"cuda:{index}" for index in range(count)] or ["cpu"])


def test_a_machine_without_gpus_runs_on_its_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert device_probe.devices("auto") == ["cpu"]
    assert device_probe.devices("cuda") == []


def test_named_devices_are_taken_as_they_are() -> None:
    assert device_probe.devices("cuda:1, cpu,cuda:1") == ["cuda:1", "cpu"]
