"""What each loss of the autoencoder adds: PSNR, FID and KID of held-out pictures that it encodes and decodes again.

    python -m generation.evaluation.reconstruction cpu

Compares the decoder before its refinement, after the perceptual loss alone, and after the adversarial one, as far as
they have been trained (``python -m generation.learning.refinement``).
"""

from __future__ import annotations

from pathlib import Path

import click
import torch
from torch import Tensor

from generation.errors import GenerationError, ModelNotFoundError
from generation.evaluation import distances
from generation.evaluation.inception import Inception
from generation.image.autoencoder import PatchAutoencoder
from generation.learning import dataset, sheets
from generation.learning.recipe import RECIPES
from generation.learning.reconstruction import to_tensor
from generation.learning.scenes import Split
from generation.learning.workspace import begin, learning_dir

STAGES = (
    ("pixel losses", "refinement/before"),
    ("and perceptual", "refinement-perceptual/vae"),
    ("and adversarial", "refinement/vae"),
)
SHEET_PICTURES = 16
BATCH = 64


@torch.inference_mode()
def rebuild(folder: Path, pictures: Tensor) -> Tensor:
    """Encode and decode pictures, ``(pictures, 3, side, side)``, by an autoencoder from disk."""
    model = PatchAutoencoder.from_pretrained(folder).float().eval()
    return torch.cat([model.decode(model.encode(part)[0]).clamp(-1, 1) for part in torch.split(pictures, BATCH)])


def psnr_db(pictures: Tensor, rebuilt: Tensor) -> float:
    """Mean peak signal-to-noise ratio in dB; both ``(pictures, 3, side, side)`` in -1 to 1."""
    return float((10 * torch.log10(4 / (pictures - rebuilt).square().mean(dim=(1, 2, 3)))).mean())


@click.command(help="Compare the autoencoder before and after each of its last losses.")
@click.argument("name", metavar="RECIPE", type=click.Choice(sorted(RECIPES)))
@click.option("--limit", type=click.IntRange(min=2), default=829, show_default=True, help="Held-out pictures.")
@click.option("--no-distances", is_flag=True, help="Leave out FID and KID.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all that this process may use otherwise.")
def main(name: str, limit: int, no_distances: bool, threads: int | None) -> None:
    """Parse the command line and compare."""
    begin(threads)
    folder = learning_dir() / name
    places = [(stage, folder / place) for stage, place in STAGES if (folder / place / "config.json").exists()]
    try:
        if not places:
            raise ModelNotFoundError(f"No decoder was refined: python -m generation.learning.refinement {name}")
        data = dataset.load(folder / "data")
        positions = [*data.indices(Split.HELD_PICTURE), *data.indices(Split.HELD_CONCEPT)][:limit]
        pictures = to_tensor(data.pictures[positions])
        inception = None if no_distances else Inception(learning_dir() / "downloads", torch.device("cpu"))
        held = None if inception is None else inception(pictures)
        rows = [pictures[:SHEET_PICTURES]]
        click.echo(f"{'losses':16} {'PSNR dB':>8} {'FID':>8} {'KID x 1000':>11}   of {len(pictures)} held-out pictures")
        for stage, place in places:
            rebuilt = rebuild(place, pictures)
            rows.append(rebuilt[:SHEET_PICTURES])
            line = f"{stage:16} {psnr_db(pictures, rebuilt):8.2f}"
            if inception is not None and held is not None:
                features = inception(rebuilt)
                line += f" {distances.frechet(features, held):8.2f} {1000 * distances.kernel(features, held):11.3f}"
            click.echo(line)
        sheets.write(torch.cat(rows), SHEET_PICTURES, folder / "reconstructions.png", scale=3)
        click.echo(f"Rows of {folder / 'reconstructions.png'}: the pictures, then as each decoder rebuilds them.")
    except GenerationError as error:
        raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
