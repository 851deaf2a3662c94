"""Make what ships of what is trained: fp16 weights in diffusers' layout, a record of the training, and the model card.

    python -m generation.learning.export cpu

Run it again after ``palaver evaluate image``: the card then holds the figures.
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from torch import Tensor, nn

from generation.errors import GenerationError, ModelCorruptError, ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.denoiser import TokenDenoiser
from generation.learning import card, checkpoints, progress, shipped
from generation.learning.concepts import STYLES, Credit
from generation.learning.recipe import RECIPES, Recipe
from generation.learning.shipped import Training
from generation.learning.workspace import begin, keep, learning_dir, parameter_count

log = logging.getLogger("palaver.learning.export")

SHARD_SIZE = "15MB"
MAX_FILE_BYTES = 16 * 10**6
MAX_TOTAL_BYTES = 60 * 10**6
RECENT_STEPS = 100


def export(recipe: Recipe, folder: Path, target: Path, stage: str | None = None) -> Training:
    """Write a recipe's best weights as the model that ships, whole or not at all.

    Args:
        recipe: Whose.
        folder: Of the recipe, with ``model/vae`` and a checkpoint of the denoiser.
        target: Replaced when the new one is complete and loads.
        stage: Folder of the denoiser's checkpoint in ``folder``; None takes the one with the most steps.

    Raises:
        ModelNotFoundError: There is nothing to export.
        ModelCorruptError: What was written does not load as what it was, or is too large to ship.
    """
    if not (folder / "model" / "vae" / "config.json").exists():
        raise ModelNotFoundError(f"There is no autoencoder in {folder}: train first.")
    place = folder / stage if stage else newest(folder)
    state = checkpoints.load(place)
    if state is None:
        raise ModelNotFoundError(f"There is no checkpoint in {place}: train first.")
    autoencoder = PatchAutoencoder.from_pretrained(folder / "model" / "vae")
    denoiser = _denoiser(recipe, autoencoder, state["weights"]["average"])
    training = _training(recipe, folder / "data", place, state)
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial, autoencoder, denoiser, training)
        _check(partial, autoencoder, denoiser)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(target, ignore_errors=True)
    partial.replace(target)
    log.info("step %d of %s is in %s: %.1f MB", training.step, place.name, target, _size_bytes(target) / 1e6)
    return training


def _forget_origin(config: Path) -> None:
    """Leave out where the weights were loaded from: a path of the machine that trained them."""
    values = json.loads(config.read_text())
    values.pop("_name_or_path", None)
    config.write_text(json.dumps(values, indent=2, sort_keys=True) + "\n")


def newest(folder: Path) -> Path:
    """The training of the denoiser with the most steps: the long one, or one that was ended well.

    Raises:
        ModelNotFoundError: There is none.
    """
    steps = {}
    for place in (folder / "diffusion", *sorted(folder.glob("finish-*"))):
        state = checkpoints.load(place)
        if state is not None:
            steps[place] = state["step"]
    if not steps:
        raise ModelNotFoundError(f"There is no checkpoint of a denoiser in {folder}: train first.")
    return max(steps, key=lambda place: steps[place])


def _denoiser(recipe: Recipe, autoencoder: PatchAutoencoder, weights: dict[str, Tensor]) -> TokenDenoiser:
    """Build the denoiser that a checkpoint's weights belong to."""
    config = autoencoder.config
    model: TokenDenoiser = TokenDenoiser(
        latent_px=config["picture_px"] // config["patch_px"],
        latent_channels=config["latent_channels"],
        width=recipe.denoiser.width,
        layers=recipe.denoiser.layers,
        heads=recipe.denoiser.heads,
        styles=len(STYLES),
    )
    model.load_state_dict(weights)
    model.eval()
    return model


def _training(recipe: Recipe, data_dir: Path, place: Path, state: dict[str, Any]) -> Training:
    manifest = json.loads((data_dir / "manifest.json").read_text("utf-8"))
    losses = [row[2] for row in progress.read_losses(place / "losses.csv")][-RECENT_STEPS:]
    return Training(
        recipe=recipe.name,
        step=state["step"],
        pictures=state["step"] * recipe.diffusion.batch,
        seconds=round(state["elapsed_s"], 1),
        loss=round(float(np.mean(losses)), 4) if losses else None,
        data=manifest["fingerprint"],
        styles=tuple(style["word"] for style in manifest["styles"]),
        credits=tuple(Credit(**credit) for credit in manifest["credits"]),
    )


def _write(folder: Path, autoencoder: PatchAutoencoder, denoiser: TokenDenoiser, training: Training) -> None:
    from diffusers import FlowMatchEulerDiscreteScheduler, __version__

    folder.mkdir(parents=True)
    for name, model in (("vae", autoencoder), ("transformer", denoiser)):
        keep(nn.Module.to(copy.deepcopy(model), torch.float16), folder / name, SHARD_SIZE)
        _forget_origin(folder / name / "config.json")
    scheduler: Any = FlowMatchEulerDiscreteScheduler  # diffusers leaves it unannotated
    scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "PalaverIconPipeline",
        "_diffusers_version": __version__,
        "vae": [PatchAutoencoder.__module__, PatchAutoencoder.__name__],
        "transformer": [TokenDenoiser.__module__, TokenDenoiser.__name__],
        "scheduler": ["diffusers", scheduler.__name__],
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    shipped.write_training(folder, training)
    card.write(folder, parameter_count(autoencoder), parameter_count(denoiser))


@torch.inference_mode()
def _check(folder: Path, autoencoder: PatchAutoencoder, denoiser: TokenDenoiser) -> None:
    """Load what was written and compare what it computes with what the float32 models do."""
    large = [path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > MAX_FILE_BYTES]
    if large or _size_bytes(folder) > MAX_TOTAL_BYTES:
        raise ModelCorruptError(
            f"The model takes {_size_bytes(folder) / 1e6:.1f} MB, its largest files {[path.name for path in large]}: "
            f"what ships may take {MAX_TOTAL_BYTES / 1e6:.0f} MB in files of {MAX_FILE_BYTES / 1e6:.0f} MB."
        )
    again = PatchAutoencoder.from_pretrained(folder / "vae").float()
    latents = torch.randn(4, *latent_shape(autoencoder), generator=torch.Generator().manual_seed(0))
    _compare("autoencoder", autoencoder.decode(latents), again.decode(latents))
    other = TokenDenoiser.from_pretrained(folder / "transformer").float()
    _compare("denoiser", _velocity(denoiser, latents), _velocity(other, latents))


def latent_shape(autoencoder: PatchAutoencoder) -> tuple[int, int, int]:
    """Channels, rows and columns of one picture's latents."""
    config = autoencoder.config
    side = config["picture_px"] // config["patch_px"]
    return config["latent_channels"], side, side


def _velocity(model: TokenDenoiser, latents: Tensor) -> Tensor:
    config = model.config
    generator = torch.Generator().manual_seed(1)
    count = len(latents)
    dropped = torch.zeros(count, dtype=torch.bool)
    velocity: Tensor = model(
        latents,
        torch.linspace(0.2, 0.8, count),
        torch.randn(count, config["text_tokens"], config["text_width"], generator=generator) * 0.3,
        nn.functional.normalize(torch.randn(count, config["sentence_width"], generator=generator), dim=-1),
        torch.arange(count) % config["styles"],
        text_dropped=dropped,
        sentence_dropped=dropped,
    )
    return velocity


def _compare(name: str, expected: Tensor, found: Tensor) -> None:
    error = float((found - expected).norm() / expected.norm())
    log.info("%s: fp16 weights change what it computes by %.2e of its norm", name, error)
    if not error < 0.01:  # not a number is wrong too
        raise ModelCorruptError(f"The {name} computes something else with fp16 weights: they are out of range.")


def _size_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@click.command(help="Make the model that ships of a recipe's newest weights, with its model card.")
@click.argument("name", metavar="RECIPE", type=click.Choice(sorted(RECIPES)))
@click.option(
    "--to",
    "target",
    type=click.Path(path_type=Path, file_okay=False),
    default=shipped.EMBEDDED_DIR,
    help="Directory of the model; by default the one that ships.",
)
@click.option(
    "--stage", help="Folder of the checkpoint, for example finish-0002000; the one with most steps otherwise."
)
@click.option("--card-only", is_flag=True, help="Write the model card anew from the figures beside the weights.")
def main(name: str, target: Path, stage: str | None, card_only: bool) -> None:
    """Parse the command line and export."""
    begin(None)
    try:
        if card_only:
            card.rewrite(target)
        else:
            export(RECIPES[name], learning_dir() / name, target, stage)
    except GenerationError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
