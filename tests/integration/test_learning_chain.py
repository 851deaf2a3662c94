"""The whole chain on drawn shapes, killed in the middle: it goes on, losses fall, and what it draws has meaning.

``make train-smoke`` runs this and keeps what it makes below ``build/train-smoke``.
"""

from __future__ import annotations

import json
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
from generation.learning.reconstruction import psnr_db, to_tensor
from generation.learning.scenes import Kind, Split

DEADLINE_S = 280.0


def _command(data_dir: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = os.environ | {"PALAVER_DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "2", "GOMP_SPINCOUNT": "0"}
    with (data_dir / "log.txt").open("ab") as log:
        return subprocess.Popen([sys.executable, "-m", module, *arguments], env=environment, stdout=log, stderr=log)


def _start(data_dir: Path) -> subprocess.Popen[bytes]:
    return _command(data_dir, "generation.learning.training", "smoke")


def _run(data_dir: Path, module: str, *arguments: str) -> None:
    process = _command(data_dir, module, *arguments)
    try:
        assert process.wait(DEADLINE_S) == 0, (data_dir / "log.txt").read_text()[-2000:]
    finally:
        process.kill()
        process.wait()


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
@pytest.mark.timeout(900)
def test_a_killed_training_goes_on_and_learns_what_words_mean(tmp_path: Path) -> None:
    folder = tmp_path / "learning" / "smoke"
    first = _start(tmp_path)
    try:
        step = _wait_for_checkpoint(folder / "diffusion", first)
    finally:
        first.kill()
        first.wait()
    assert 0 < step < 200, "killed in the middle"
    _run(tmp_path, "generation.learning.training", "smoke")
    assert f"diffusion: going on from step {step}" in (tmp_path / "log.txt").read_text()

    losses = progress.read_losses(folder / "diffusion" / "losses.csv")
    assert [row[0] for row in losses] == list(range(1, 201))
    start, end = _mean_of_ends(losses)
    assert end < 0.35 * start
    start, end = _mean_of_ends(progress.read_losses(folder / "autoencoder" / "losses.csv"))
    assert end < 0.2 * start
    assert _recognised(folder) >= 6, "of twelve names, chance would give one"
    _judge_refine_export_and_evaluate(tmp_path, folder)


def _judge_refine_export_and_evaluate(data_dir: Path, folder: Path) -> None:
    """Run the rest of the chain, command by command, as a person would."""
    _run(data_dir, "generation.learning.scorer", "smoke")
    start, end = _mean_of_ends(progress.read_losses(folder / "scorer" / "losses.csv"))
    assert end < 0.7 * start
    _run(data_dir, "generation.learning.refinement", "smoke")
    data = dataset.load(folder / "data")
    before, after = (
        psnr_db(PatchAutoencoder.from_pretrained(folder / "refinement" / name), data, Split.HELD_PICTURE)
        for name in ("before", "vae")
    )
    assert after > before - 0.5, "what looks right is still the same picture"
    _run(data_dir, "generation.evaluation.reconstruction", "smoke", "--no-distances")
    assert (folder / "reconstructions.png").stat().st_size > 1000
    model, out = data_dir / "embedded", data_dir / "evaluation" / "image"
    _run(data_dir, "generation.learning.export", "smoke", "--to", str(model))
    refined = PatchAutoencoder.from_pretrained(folder / "refinement" / "vae").state_dict()
    shipped = PatchAutoencoder.from_pretrained(model / "vae").state_dict()
    for name, value in refined.items():
        torch.testing.assert_close(shipped[name].float(), value, rtol=1e-3, atol=1e-4)
    _run(data_dir, "generation.evaluation.image", "--model", str(model), "--no-distances", "--card")
    report = json.loads((out / "evaluation.json").read_text())
    figures = {(figure["name"], figure["group"]): figure["value"] for figure in report["figures"]}
    assert figures["recognised among 4", "known concepts, real"] > 0.6
    assert figures["recognised among 4", "known concepts, drawn from English"] > 0.5, "chance would give a quarter"
    assert figures["Inception Score", "drawn from English"] > 2
    (similarity,) = (value for (name, _), value in figures.items() if name == "MS-SSIM of pairs")
    assert 0 < similarity < 1
    card = (model / "README.md").read_text()
    assert "palaver evaluate image" in card
    assert "recognised among 4" in card
    assert (out / "known-concepts.png").stat().st_size > 1000


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
