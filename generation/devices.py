"""What this machine offers, read without any model library: cores, memory, and an engine's environment.

Whoever starts an engine process uses this; the choice of a torch device is in ``generation.torch_devices``.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CPUS = Path("/sys/devices/system/cpu")


def physical_cores() -> int:
    """Physical cores this process may use: its affinity, hardware threads counted once, within its cgroup's quota."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    cores = {_core_of(cpu) for cpu in allowed}
    quota = _cpu_quota()
    return max(1, min(len(cores), round(quota)) if quota else len(cores))


def engine_environment(threads: int = 0) -> dict[str, str]:
    """Variables that an engine process needs in its environment before it starts.

    OpenMP reads them when torch is loaded, so the parent has to set them. ``GOMP_SPINCOUNT=0`` makes waiting OpenMP
    threads sleep instead of spin: with another busy process on the same cores, spinning slows a decode step tenfold,
    and without one it gains nothing at the size of these steps.

    Args:
        threads: CPU threads to compute with; 0 takes ``physical_cores()``.

    Returns:
        Names and values, to be merged over the parent's environment.

    Source:
        GNU libgomp manual, "Environment Variables"; https://gcc.gnu.org/onlinedocs/libgomp/GOMP_005fSPINCOUNT.html
    """
    count = str(threads or physical_cores())
    return {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "GOMP_SPINCOUNT": "0",
        "OMP_WAIT_POLICY": "passive",  # the same for other OpenMP runtimes
        "TOKENIZERS_PARALLELISM": "false",  # its thread pool would compete with the model's
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


def computes_bf16() -> bool:
    """Whether this CPU multiplies in bfloat16 (AVX-512 BF16, AMX or ARM's BF16); elsewhere float32 is faster."""
    return bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "bf16"})


def free_memory_bytes() -> int:
    """Memory that this process can still take: the machine's, within every cgroup limit above it (v1 and v2)."""
    available = _meminfo_bytes("MemAvailable")
    rooms = [room for room in (_cgroup_room_bytes(folder) for folder in _memory_cgroups()) if room is not None]
    return max(0, min([available, *rooms]))


@functools.cache
def gpu_memory_bytes() -> int:
    """Memory of the largest NVIDIA GPU, 0 without one."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    command = [tool, "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
        return max((int(line) for line in told.split()), default=0) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError):
        return 0


def _core_of(cpu: int) -> str:
    """The hardware threads that share this one's core, as the kernel writes them; the thread itself if unknown."""
    return _read(_CPUS / f"cpu{cpu}/topology/thread_siblings_list") or str(cpu)


def _cpu_quota() -> float | None:
    """Cores' worth of time that the tightest cgroup grants, None without a limit."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        granted, _, period = _read(folder / "cpu.max").partition(" ")  # v2: "max 100000" or "150000 100000"
        if not granted:
            granted, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        if granted.isdigit() and period.isdigit() and int(period):
            quotas.append(int(granted) / int(period))
    return min(quotas, default=None)


def _memory_cgroups() -> list[Path]:
    return _cgroup_folders("memory")


def _cgroup_room_bytes(folder: Path) -> int | None:
    """What a cgroup still grants. Its page cache counts as used although the kernel would give it back."""
    limit = _read(folder / "memory.max") or _read(folder / "memory.limit_in_bytes")
    used = _read(folder / "memory.current") or _read(folder / "memory.usage_in_bytes")
    if not (limit.isdigit() and used.isdigit()):
        return None
    cache = dict(line.split() for line in _read(folder / "memory.stat").splitlines() if line.count(" ") == 1)
    reclaimable = int(cache.get("total_inactive_file") or cache.get("inactive_file") or 0)
    return int(limit) - int(used) + reclaimable


def _cgroup_folders(controller: str) -> list[Path]:
    """This process's cgroup and all above it; in a container the root of the mount is its own."""
    folders: list[Path] = []
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            root = _CGROUP / "unified" if (_CGROUP / "unified").is_dir() else _CGROUP
        elif controller in controllers.split(","):
            root = _CGROUP / controller
        else:
            continue
        own = root / path.lstrip("/")
        folders += [folder for folder in (own, *own.parents) if folder == root or root in folder.parents]
    return [folder for folder in folders if folder.is_dir()]


def _meminfo_bytes(key: str) -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0]) * 1024
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return pages // 2  # systems without /proc do not tell what is free


def _cpu_flags() -> set[str]:
    for line in _read(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {"flags", "Features"}:
            return set(value.split())
    return set()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
