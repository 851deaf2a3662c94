"""Which devices this machine offers, found out without importing a model library."""

from __future__ import annotations

import os
import subprocess

_PROBE_TIMEOUT_S = 10.0


def devices(wanted: str = "auto") -> list[str]:
    """The devices to run one worker each on.

    Args:
        wanted: ``auto`` for all CUDA devices that are visible, else the CPU; or names with commas between
            (``cuda:0,cuda:1``, ``cpu``).

    Returns:
        Names as torch writes them: ``cpu``, ``cuda:0``...
    """
    if wanted == "auto":
        return [f"cuda:{index}" for index in range(cuda_count())] or ["cpu"]
    if wanted == "cuda":
        return [f"cuda:{index}" for index in range(cuda_count())]
    return list(dict.fromkeys(name.strip() for name in wanted.split(",") if name.strip()))


def cuda_count() -> int:
    """Number of CUDA devices a process started now may use, counted as CUDA does.

    ``CUDA_VISIBLE_DEVICES`` renumbers the devices from 0 and ends at its first invalid entry.
    """
    try:
        listing = subprocess.run(
            ["nvidia-smi", "--list-gpus"], capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return 0
    installed = sum(line.startswith("GPU ") for line in listing.stdout.splitlines()) if listing.returncode == 0 else 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None or not installed:
        return installed
    count = 0
    for entry in visible.split(","):
        name = entry.strip()
        if not (name.startswith(("GPU-", "MIG-")) or (name.isdigit() and int(name) < installed)):
            break
        count += 1
    return count
