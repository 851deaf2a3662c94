"""Where a model computes and in which numbers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

from generation import devices
from generation.errors import ModelError

_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Turn a setting into a device.

    Args:
        name: ``auto`` (CUDA if there is any), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: That device is not here.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "auto":
        return torch.device("cuda", 0) if count else torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= count:
        raise ModelError(
            f"Device {name!r} is not here: torch sees {count} CUDA device(s). "
            "Choose device 'cpu' or 'auto', or check the driver and that torch was installed with CUDA."
        )
    return torch.device("cuda", device.index or 0) if device.type == "cuda" else device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Turn a setting into a number format.

    Args:
        name: ``float32``, ``bfloat16``, ``float16``, or ``auto``: bfloat16 only where the device computes in it, for
            CPUs without it float32, for GPUs without it float16.
        device: Where the model will compute.
    """
    if name != "auto":
        return _DTYPES[name]
    if device.type == "cuda":
        with torch.cuda.device(device):
            native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if devices.computes_bf16() else torch.float32


def free_memory_bytes(device: torch.device) -> int:
    """Memory that can still be taken on this device."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    return devices.free_memory_bytes()


def set_threads(threads: int) -> int:
    """Compute with this many CPU threads.

    Args:
        threads: 0 takes what ``OMP_NUM_THREADS`` says, else the physical cores this process may use.

    Returns:
        The number of threads in force.
    """
    if threads or "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(threads or devices.physical_cores())
    return torch.get_num_threads()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; on a CPU torch has no class of its own for that."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and ("can't allocate memory" in text or "not enough memory" in text)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one CPU thread meanwhile: several wait for each other at every step, however small it is."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
