"""``palaver worker``: workers for some kinds of model on some devices."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import get_args

import click

from bots import log, settings
from bots.settings import Settings
from generation import devices as machine
from workers import redis_connection
from workers.contract import Kind
from workers.errors import SettingsError
from workers.process_tree import die_with_parent
from workers.supervisor import Supervisor
from workers.worker_process import WorkerConfig, reveal

#: What the engine process of each kind builds.
_FACTORIES: dict[Kind, str] = {"chat": "generation.chat.factory:build"}


@click.command("worker")
@click.option("--kinds", default="chat", show_default=True, help="Which kinds of model, with commas between.")
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    help="Where: cpu, cuda:0,cuda:1 and so on; auto takes every GPU, or the CPU.",
)
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
def command(kinds: str, devices: str, parent: int | None) -> None:
    """Run workers until stopped, one for each kind and device.

    The first SIGTERM or Ctrl-C lets running answers finish; a second gives them back to the queue at once.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    if parent is not None:
        die_with_parent(parent)
    with redis_connection.connect(configured.redis, configured.data_dir) as client:
        redis_connection.check(client)
    _set_threads(configured.chat.threads)
    Supervisor(
        [
            _config(configured, kind, device)
            for kind in _kinds(kinds)
            for device in _devices(devices, configured.chat.device)
        ]
    ).run()


def _set_threads(threads: int) -> None:
    """OpenMP reads its variables when torch is loaded, so the engine must inherit them; what is set by hand stays."""
    wanted = machine.engine_environment(threads)
    os.environ.update(wanted if threads else {name: wanted[name] for name in wanted if name not in os.environ})


def _config(configured: Settings, kind: Kind, device: str) -> WorkerConfig:
    options = reveal(configured.chat.model_dump())
    if device != "auto":
        options["device"] = device
    return WorkerConfig(
        kind=kind,
        name=f"{kind}-{device.replace(':', '')}-{socket.gethostname()}-{os.getpid()}",
        redis=configured.redis,
        data_dir=configured.data_dir,
        limits=configured.limits.chat,
        worker=configured.worker,
        factory=_FACTORIES[kind],
        options={**options, "data_dir": str(configured.data_dir)},
        log_level=configured.log_level.upper(),
    )


def _kinds(text: str) -> list[Kind]:
    known: tuple[Kind, ...] = get_args(Kind)
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise SettingsError(f"--kinds: there is no kind {name}; known are {', '.join(known)}.")
    return [kind for kind in known if kind in wanted]


def _devices(text: str, configured: str) -> list[str]:
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if names != ["auto"]:
        return names or ["auto"]
    gpus = _gpus()
    # With one or none the engine finds out by itself.
    return [f"cuda:{number}" for number in range(gpus)] if gpus > 1 and configured == "auto" else [configured]


def _gpus() -> int:
    """GPUs that a worker started from here would see."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return 0
    try:
        told = subprocess.run([tool, "--list-gpus"], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return 0
    return len(told.splitlines())
