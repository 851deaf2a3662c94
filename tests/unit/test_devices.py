"""What the machine offers, read from files laid out as kernels and containers lay them out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from generation import devices, torch_devices
from generation.errors import ModelError

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A function that lays out files of a made-up machine and makes ``devices`` read those."""
    monkeypatch.setattr(devices, "_CGROUP", tmp_path / "sys/fs/cgroup")
    real = devices._read

    def read(path: Path) -> str:
        return real(path if tmp_path in path.parents else tmp_path / str(path).lstrip("/"))

    monkeypatch.setattr(devices, "_read", read)

    def lay_out(files: dict[str, str]) -> None:
        for name, text in files.items():
            path = tmp_path / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    return lay_out


def four_threads_on_two_cores() -> dict[str, str]:
    name = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return {name.format(cpu): f"{cpu % 2},{cpu % 2 + 2}\n" for cpu in range(4)}


@pytest.mark.parametrize(("affinity", "cores"), [({0, 1, 2, 3}, 2), ({0, 2}, 1), ({0, 1}, 2), ({3}, 1)])
def test_hardware_threads_of_one_core_count_once(machine, monkeypatch, affinity, cores):
    machine(four_threads_on_two_cores())
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: affinity)
    assert devices.physical_cores() == cores


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/b/cpu.max": "150000 100000"}, 2),
        (
            {"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "100000 100000", "/sys/fs/cgroup/a/b/x": ""},
            1,
        ),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "20000 100000"}, 1),
        ({"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000"}, 4),
        (
            {
                "/proc/self/cgroup": "4:cpu,cpuacct:/box\n0::/\n",
                "/sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": "300000",
                "/sys/fs/cgroup/cpu/box/cpu.cfs_period_us": "100000",
            },
            3,
        ),
        ({"/proc/self/cgroup": "4:cpu:/box\n", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1"}, 4),
        ({}, 4),
    ],
)
def test_a_cgroups_quota_limits_the_cores(machine, monkeypatch, files, cores):
    machine(files)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2, 3})
    assert devices.physical_cores() == cores


MEMINFO = {"/proc/meminfo": f"MemTotal: {16 * GIB // 1024} kB\nMemAvailable: {12 * GIB // 1024} kB\n"}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({}, 12 * GIB),
        (
            {
                "/proc/self/cgroup": "0::/box\n",
                "/sys/fs/cgroup/box/memory.max": str(4 * GIB),
                "/sys/fs/cgroup/box/memory.current": str(3 * GIB),
                "/sys/fs/cgroup/box/memory.stat": f"anon {2 * GIB}\ninactive_file {GIB // 2}\n",
            },
            GIB + GIB // 2,
        ),
        (
            {
                "/proc/self/cgroup": "0::/box\n",
                "/sys/fs/cgroup/box/memory.max": "max",
                "/sys/fs/cgroup/box/memory.current": str(3 * GIB),
            },
            12 * GIB,
        ),
        (
            {
                "/proc/self/cgroup": "8:memory:/box\n0::/\n",
                "/sys/fs/cgroup/memory/box/memory.limit_in_bytes": str(2 * GIB),
                "/sys/fs/cgroup/memory/box/memory.usage_in_bytes": str(GIB),
                "/sys/fs/cgroup/memory/box/memory.stat": f"inactive_file 0\ntotal_inactive_file {GIB // 4}\n",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes": str(2**63 - 4096),
                "/sys/fs/cgroup/memory/memory.usage_in_bytes": "4096",
            },
            GIB + GIB // 4,
        ),
    ],
)
def test_free_memory_is_the_tightest_limit(machine, files, free):
    machine(MEMINFO | files)
    assert devices.free_memory_bytes() == free


@pytest.mark.parametrize(
    ("cpuinfo", "computes"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16 amx_tile", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("Features\t: fp asimd bf16", True),
        ("Features\t: fp asimd", False),
        ("", False),
    ],
)
def test_bf16_is_used_only_where_the_cpu_computes_in_it(machine, cpuinfo, computes):
    machine({"/proc/cpuinfo": f"processor : 0\n{cpuinfo}\n"})
    assert devices.computes_bf16() is computes
    dtype = torch_devices.choose_dtype("auto", torch.device("cpu"))
    assert dtype == (torch.bfloat16 if computes else torch.float32)


def test_what_is_read_here_is_plausible():
    assert 1 <= devices.physical_cores() <= (os.cpu_count() or 1)
    assert 2**26 < devices.free_memory_bytes() < 2**50


def test_an_engines_environment_rules_its_threads():
    code = "import torch, os; print(torch.get_num_threads(), os.environ['GOMP_SPINCOUNT'])"
    environment = os.environ | devices.engine_environment(1)
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["1", "0"]
    assert devices.engine_environment()["OMP_NUM_THREADS"] == str(devices.physical_cores())


def test_threads_are_set_deliberately(monkeypatch):
    before = torch.get_num_threads()
    try:
        assert torch_devices.set_threads(1) == torch.get_num_threads() == 1
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert torch_devices.set_threads(0) == 1, "what was set by hand stays"
        monkeypatch.delenv("OMP_NUM_THREADS")
        assert torch_devices.set_threads(0) == torch.get_num_threads() == devices.physical_cores()
    finally:
        torch.set_num_threads(before)


def test_devices_by_name():
    assert torch_devices.choose_device("cpu") == torch.device("cpu")
    expected = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    assert torch_devices.choose_device("auto") == expected
    with pytest.raises(ModelError, match=r"'cuda:99' is not here: torch sees \d+ CUDA device"):
        torch_devices.choose_device("cuda:99")


def test_dtypes_by_name():
    for name in ("float32", "bfloat16", "float16"):
        assert torch_devices.choose_dtype(name, torch.device("cpu")) == getattr(torch, name)
