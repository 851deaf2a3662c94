"""Train the embedded image model: data set, autoencoder, denoiser, one after the other.

    python -m generation.learning.training cpu

Every stage goes on from where it was when the command runs again, also after a kill. SIGTERM and Ctrl+C save first;
SIGSTOP and SIGCONT pause and go on. On a machine without checkpoints training goes on from the model that ships with
the product, so that what many machines have learned adds up.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, replace
from pathlib import Path

import click
import torch
from torch import Tensor, nn

from generation.errors import GenerationError, ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.conditioning import SENTENCE_WIDTH, TEXT_TOKENS, TEXT_WIDTH
from generation.image.denoiser import TokenDenoiser
from generation.learning import checkpoints, dataset, features, shipped, sources
from generation.learning.concepts import STYLES
from generation.learning.dataset import DataSet
from generation.learning.diffusion import FlowLoss, SampleSheet
from generation.learning.loop import CPU, Loop, Schedule, Stopped
from generation.learning.recipe import RECIPES, Recipe
from generation.learning.reconstruction import ReconstructionLoss, ReconstructionSheet, psnr_db
from generation.learning.scenes import Split
from generation.learning.shipped import Start
from generation.learning.sources import Sources, TextEncoder
from generation.learning.workspace import alone, begin, keep, learning_dir, parameter_count

log = logging.getLogger("palaver.learning.training")

# Drawn again and again, so that one sees what has been learned. The last row is Chinese.
PROMPTS = (
    *("a cat", "a dog", "a red fox", "an elephant", "a butterfly", "a tropical fish", "a penguin", "a horse"),
    *("a red apple", "a pizza", "a birthday cake", "a cup of coffee", "a banana", "an ice cream", "sushi", "a carrot"),
    *("a car", "a bicycle", "a rocket", "a sailboat", "an airplane", "a train", "a fire engine", "a house"),
    *("a tree", "a sunflower", "a rose", "the sun", "a rainbow", "a snowman", "a volcano", "a castle"),
    *("a smiling face", "a crying face", "an angry face", "a robot", "a ghost", "an alien", "a clown", "a skull"),
    *("a guitar", "a soccer ball", "a laptop", "a key", "a camera", "a crown", "an umbrella", "a light bulb"),
    *("two cats", "three apples", "a cat on a red background", "a blue car", "a small fish", "a green book"),
    *("a dog left of a tree", "a star above a house"),
    *("猫", "一只狗", "红苹果", "汽车", "火箭", "蓝色背景上的鱼", "两只猫", "太阳"),
)
SHEET_COLUMNS = 8


def train(
    recipe: Recipe,
    origin: Sources,
    folder: Path,
    processes: int,
    *,
    finish_steps: int | None = None,
    start: Start | None = None,
    device: torch.device = CPU,
) -> TokenDenoiser:
    """Run the whole chain in a folder, from wherever it was.

    Args:
        recipe: What to train.
        origin: What the data set is made from.
        folder: Of this recipe: data set, checkpoints, sheets, models.
        processes: How many draw pictures at the same time.
        finish_steps: End diffusion from where it is, with learning rates that fall to zero over this many steps.
        start: A shipped model to go on from where the folder has no checkpoint of its own.
        device: Where to compute.

    Returns:
        The trained denoiser. It and the autoencoder are saved in ``folder/model`` in diffusers' layout.

    Raises:
        Stopped: A signal asked for an end; run again to go on.
    """
    data = dataset.build(
        folder / "data", origin.concepts, origin.icons, recipe.mix, origin.credits, processes, recipe.scale
    )
    log.info("data set %s: %d pictures, %d captions", data.fingerprint, len(data.records), len(data.captions))
    autoencoder = train_autoencoder(recipe, data, folder, start, device)
    encoder = origin.text_encoder()
    captions = features.caption_features(folder / "features", data, encoder)
    latents = features.latents(folder / "features", data, autoencoder, _identity(autoencoder), device)
    keep(autoencoder, folder / "model" / "vae")
    denoiser, first_step = _denoiser(recipe, latents, start)
    log.info("denoiser: %.1f million parameters", parameter_count(denoiser) / 1e6)
    place, schedule = folder / "diffusion", recipe.diffusion
    if finish_steps is not None:
        place, schedule = branch(folder, schedule, finish_steps)
    trained: TokenDenoiser = Loop(
        place,
        place.name,
        denoiser,
        FlowLoss(data, latents.to(device), captions.to(device), schedule.batch),
        schedule,
        recipe.intervals,
        _sheet(nn.Module.to(autoencoder, device), encoder, tuple(latents.shape[1:])),
        first_step=first_step,
        device=device,
        compiled=recipe.compiled,
    ).run()
    keep(trained, folder / "model" / "transformer")
    return trained


def _denoiser(recipe: Recipe, latents: Tensor, start: Start | None) -> tuple[TokenDenoiser, int]:
    """Make the denoiser of a recipe, or take the shipped one; the second value says which step it has reached."""
    shape = latents.shape[1:]
    if start is not None:
        return start.denoiser, start.training.step
    torch.manual_seed(recipe.diffusion.seed)
    denoiser = TokenDenoiser(
        latent_px=shape[-1],
        latent_channels=shape[0],
        text_tokens=TEXT_TOKENS,
        text_width=TEXT_WIDTH,
        sentence_width=SENTENCE_WIDTH,
        styles=len(STYLES),
        **asdict(recipe.denoiser),
    )
    return denoiser, 0


def branch(folder: Path, schedule: Schedule, steps: int) -> tuple[Path, Schedule]:
    """Prepare to end diffusion from its last checkpoint, so that the long training itself can go on later.

    Args:
        folder: Of the recipe.
        schedule: Of the long training.
        steps: How many steps the end takes; the learning rates fall in all of them.

    Returns:
        The folder of the end, with a copy of the checkpoint, and its schedule.

    Raises:
        ModelNotFoundError: Diffusion has no checkpoint yet.
    """
    state = checkpoints.load(folder / "diffusion")
    if state is None:
        raise ModelNotFoundError(f"There is no diffusion checkpoint in {folder} to finish: train first.")
    place = folder / f"finish-{state['step']:07d}"
    if checkpoints.load(place) is None:
        checkpoints.save(place, state)
    return place, replace(schedule, total_steps=state["step"] + steps, cooldown_steps=steps)


def train_autoencoder(
    recipe: Recipe, data: DataSet, folder: Path, start: Start | None = None, device: torch.device = CPU
) -> PatchAutoencoder:
    """Train the autoencoder in ``folder/autoencoder``, or take the one in ``folder/model``, or the shipped one.

    One that is there is final: the denoiser's checkpoint knows its latents and no others.
    """
    if (folder / "model" / "vae" / "config.json").exists():
        finished: PatchAutoencoder = PatchAutoencoder.from_pretrained(folder / "model" / "vae")
        return finished
    if start is not None:
        return start.autoencoder
    torch.manual_seed(recipe.reconstruction.seed)
    model = PatchAutoencoder(**asdict(recipe.autoencoder))
    log.info("autoencoder: %.1f million parameters", parameter_count(model) / 1e6)
    trained: PatchAutoencoder = Loop(
        folder / "autoencoder",
        "autoencoder",
        model,
        ReconstructionLoss(data, recipe.reconstruction.batch),
        recipe.reconstruction,
        recipe.intervals,
        ReconstructionSheet(data),
        device=device,
    ).run()
    log.info("autoencoder: PSNR %.2f dB on held-out pictures", psnr_db(trained, data, Split.HELD_PICTURE))
    return trained


def _sheet(autoencoder: PatchAutoencoder, encoder: TextEncoder, shape: tuple[int, ...]) -> SampleSheet:
    styles = torch.arange(len(PROMPTS)) // SHEET_COLUMNS % len(STYLES)
    names = [prompt if prompt.isascii() else f"(zh) {index}" for index, prompt in enumerate(PROMPTS)]
    return SampleSheet(autoencoder, encoder(list(PROMPTS)), names, styles, shape, SHEET_COLUMNS)


def _identity(autoencoder: PatchAutoencoder) -> str:
    """What the latents depend on: the encoder alone, so that a better decoder leaves them as they are."""
    digest = hashlib.sha256()
    for name, parameter in autoencoder.named_parameters():
        if name.startswith(("embed.", "encoder", "to_moments.")):
            digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def usual_start(recipe: Recipe, folder: Path) -> Start | None:
    """The shipped model, where the folder of a recipe has nothing of its own to go on from."""
    if (folder / "diffusion" / checkpoints.NAME).exists() or (folder / "model" / "vae" / "config.json").exists():
        return None
    if (folder / "autoencoder" / checkpoints.NAME).exists():
        return None
    return shipped.start_for(recipe.name)


@click.command(help="Train the embedded image model; run it again to go on.")
@click.argument("name", metavar="RECIPE", type=click.Choice(sorted(RECIPES)))
@click.option("--finish-in", type=click.IntRange(min=1), metavar="STEPS", help="End diffusion well in so many steps.")
@click.option("--from-nothing", is_flag=True, help="Do not go on from the model that ships with the product.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all that this process may use otherwise.")
def main(name: str, finish_in: int | None, from_nothing: bool, device: str, threads: int | None) -> None:
    """Parse the command line and train."""
    cores = begin(threads)
    recipe = RECIPES[name]
    folder = learning_dir() / name
    with alone(folder):
        try:
            start = None if from_nothing else usual_start(recipe, folder)
            origin = sources.of_recipe(name, learning_dir() / "downloads")
            train(recipe, origin, folder, cores, finish_steps=finish_in, start=start, device=torch.device(device))
        except Stopped as stopped:
            log.info("%s", stopped)
        except GenerationError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
