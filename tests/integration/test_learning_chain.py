"""The whole chain on drawn shapes, killed in the middle: it goes on, losses fall, and what it draws has meaning."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from generation.image.autoencoder import PatchAutoencoder
from generation.image.denoiser import TokenDenoiser
from generation.learning import checkpoints, dataset, progress, sources
from generation.learning.diffusion import Guidance, sample
from generation.learning.reconstruction import to_tensor
from generation.learning.scenes import Kind, Split

DEADLINE_S = 280.0


def _start(data_dir: Path) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PALAVER_DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "0"}
    command = [sys.executable, "-m", "generation.learning.training", "smoke"]
    with (data_dir / "training.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def _wait_for_checkpoint(folder: Path, process: subprocess.Popen[bytes]) -> int:
    """Wait until diffusion has a checkpoint in its middle; give its step."""
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / checkpoints.NAME).exists():
            state = checkpoints.load(folder)
            assert state is not None
            return int(state["step"])
        time.sleep(0.2)
    raise AssertionError(f"no checkpoint in {folder}; the process ended with {process.poll()}")


def _mean_of_ends(rows: list[tuple[int, float, float, float, float]]) -> tuple[float, float]:
    losses = [row[2] for row in rows]
    return float(np.mean(losses[:5])), float(np.mean(losses[-20:]))


@pytest.mark.kill
@pytest.mark.timeout(600)
def test_a_killed_training_goes_on_and_learns_what_words_mean(tmp_path: Path) -> None:
    folder = tmp_path / "learning" / "smoke"
    first = _start(tmp_path)
    try:
        step = _wait_for_checkpoint(folder / "diffusion", first)
    finally:
        first.kill()
        first.wait()
    assert 0 < step < 200, "killed in the middle"
    second = _start(tmp_path)
    try:
        assert second.wait(DEADLINE_S) == 0, (tmp_path / "training.log").read_text()[-2000:]
    finally:
        second.kill()
        second.wait()
    assert f"diffusion: going on from step {step}" in (tmp_path / "training.log").read_text()

    losses = progress.read_losses(folder / "diffusion" / "losses.csv")
    assert [row[0] for row in losses] == list(range(1, 201))
    start, end = _mean_of_ends(losses)
    assert end < 0.35 * start
    start, end = _mean_of_ends(progress.read_losses(folder / "autoencoder" / "losses.csv"))
    assert end < 0.2 * start
    assert _recognised(folder) >= 6, "of twelve names, chance would give one"


@torch.inference_mode()
def _recognised(folder: Path) -> int:
    """Draw every shape by its name and count those that are nearest to real pictures of that shape."""
    data = dataset.load(folder / "data")
    autoencoder = PatchAutoencoder.from_pretrained(folder / "model" / "vae").eval()
    denoiser = TokenDenoiser.from_pretrained(folder / "model" / "transformer").eval()
    names = [name for name, _, _ in sources.SHAPES]
    singles = data.indices(Split.TRAIN, Kind.SINGLE)
    codes = [int(data.records[position].code.removeprefix("SHAPE-")) for position in singles]
    real = to_tensor(data.pictures[singles])
    styles = torch.full((len(names),), denoiser.any_style)
    latents = sample(denoiser, sources.hashed_words(names), styles, (8, 8, 8), Guidance(steps=16, scale=2.0), seed=0)
    drawn = autoencoder.decode(autoencoder.denormalise(latents))
    distances = (drawn[:, None] - real[None]).square().mean(dim=(2, 3, 4))
    nearest = distances.argmin(dim=1).tolist()
    return sum(codes[position] == code for code, position in enumerate(nearest) if code in codes)
