"""The autoencoder's last stage: its decoder learns what looks right, from a perceptual and an adversarial loss.

    python -m generation.learning.refinement cpu

The encoder is frozen, so latents and every checkpoint of the denoiser stay valid. When it ends well, the decoder takes
its place in ``model/vae``; the autoencoder's own checkpoint keeps the one before.
"""

from __future__ import annotations

import logging
from pathlib import Path

import click
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor, nn

from generation.errors import GenerationError, ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.learning import dataset, sources
from generation.learning.dataset import DataSet
from generation.learning.loop import CPU, Loop, Stopped
from generation.learning.matching import PictureTextScorer
from generation.learning.recipe import RECIPES, Recipe
from generation.learning.reconstruction import ReconstructionSheet, pixel_loss, psnr_db, random_pictures
from generation.learning.scenes import Split
from generation.learning.scorer import load_trained
from generation.learning.workspace import alone, begin, keep, learning_dir

log = logging.getLogger("palaver.learning.refinement")

PERCEPTUAL_WEIGHT = 0.3
ADVERSARIAL_WEIGHT = 0.1
MAX_ADAPTIVE_WEIGHT = 100.0
CRITIC_WIDTH = 48
# In standard deviations of the latents: a denoiser's latents are never quite those of a picture.
MAX_LATENT_NOISE = 0.2


class PatchCritic(nn.Module):
    """Says of every patch of a picture whether it is real: a few strided convolutions.

    Args:
        width: Channels after the first convolution.

    Source: Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks" (PatchGAN), 2017.
    """

    def __init__(self, width: int = CRITIC_WIDTH) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.GroupNorm(8, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 3 * width, 3, padding=1),
            nn.GroupNorm(8, 3 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(3 * width, 1, 3, padding=1),
        )

    def forward(self, pictures: Tensor) -> Tensor:
        """Map ``(batch, 3, side, side)`` to logits ``(batch, 1, side / 4, side / 4)``: above 0 is real."""
        logits: Tensor = self.layers(pictures)
        return logits


class Duel(nn.Module):
    """A decoder and its critic as one module, so that the usual loop trains, saves and resumes both together.

    Args:
        autoencoder: Its encoder is frozen.
        critic: Newly made.
    """

    def __init__(self, autoencoder: PatchAutoencoder, critic: PatchCritic) -> None:
        super().__init__()
        self.autoencoder, self.critic = autoencoder, critic
        for name, parameter in autoencoder.named_parameters():
            parameter.requires_grad_(name.startswith(("from_latent", "decoder", "to_pixels", "smooth")))


class RefinementLoss:
    """The losses of decoder and critic on one batch, added: neither sends gradients to the other's weights.

    Args:
        data: Its training split is used.
        scorer: Its feature maps are what the perceptual loss compares; frozen.
        batch: Pictures of a step.
        adversarial_weight: Of the critic's opinion in the decoder's loss; 0 leaves the critic out.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018; Esser et al.,
    "Taming Transformers for High-Resolution Image Synthesis", 2021 (hinge losses, the adaptive weight).
    """

    def __init__(
        self, data: DataSet, scorer: PictureTextScorer, batch: int, adversarial_weight: float = ADVERSARIAL_WEIGHT
    ) -> None:
        self._data, self._batch, self._adversarial_weight = data, batch, adversarial_weight
        self._positions = data.indices(Split.TRAIN)
        self._scorer = nn.Module.to(scorer, torch.bfloat16).requires_grad_(requires_grad=False).eval()

    def __call__(self, model: Duel, generator: torch.Generator) -> Tensor:
        """Compute the sum of both losses for a random batch."""
        pictures = random_pictures(self._data, self._positions, self._batch, generator)
        autoencoder = model.autoencoder
        dtype = autoencoder.decoder_position.dtype
        with torch.no_grad():
            latents = autoencoder.encode(pictures.to(dtype))[0]
            amount = MAX_LATENT_NOISE * torch.rand(self._batch, generator=generator, device=latents.device)
            noise = torch.randn(latents.shape, generator=generator, device=latents.device)
            latents += amount[:, None, None, None] * autoencoder.latents_std.float()[:, None, None] * noise
        rebuilt = autoencoder.decode(latents.to(dtype))
        pleasing = pixel_loss(rebuilt.float(), pictures) + PERCEPTUAL_WEIGHT * self._perceptual(rebuilt, pictures)
        if not self._adversarial_weight:
            return pleasing
        real = pictures.to(dtype)
        convincing = -_judged_by_frozen(model.critic, rebuilt).float().mean()
        weight = self._adversarial_weight * _adaptive_weight(pleasing, convincing, autoencoder.to_pixels.weight)
        doubt = (
            F.relu(1 - model.critic(real).float()).mean() + F.relu(1 + model.critic(rebuilt.detach()).float()).mean()
        )
        return pleasing + weight * convincing + 0.5 * doubt

    def _perceptual(self, rebuilt: Tensor, pictures: Tensor) -> Tensor:
        """Mean squared distance of the scorer's features, each place's vector of unit length, summed over the maps."""
        nn.Module.to(self._scorer, rebuilt.device)
        found, wanted = self._scorer.maps(rebuilt), self._scorer.maps(pictures.to(rebuilt.dtype))
        distances = [
            (F.normalize(one.float(), dim=1) - F.normalize(other.float(), dim=1)).square().sum(dim=1).mean()
            for one, other in zip(found, wanted, strict=True)
        ]
        return torch.stack(distances).sum()


def _judged_by_frozen(critic: PatchCritic, pictures: Tensor) -> Tensor:
    """The critic's logits, with gradients for the pictures and none for its weights."""
    frozen = {name: parameter.detach() for name, parameter in critic.named_parameters()}
    logits: Tensor = torch.func.functional_call(critic, frozen, (pictures,))
    return logits


def _adaptive_weight(pleasing: Tensor, convincing: Tensor, last: Tensor) -> Tensor:
    """Balance two losses by their gradients at the decoder's last layer."""
    (wanted,) = torch.autograd.grad(pleasing, last, retain_graph=True)
    (found,) = torch.autograd.grad(convincing, last, retain_graph=True)
    weight: Tensor = wanted.float().norm() / (found.float().norm() + 1e-4)
    return weight.clamp(0, MAX_ADAPTIVE_WEIGHT).detach()


class _Sheet:
    """The reconstruction sheet, of a duel's autoencoder."""

    def __init__(self, data: DataSet) -> None:
        self._draw = ReconstructionSheet(data)

    def __call__(self, model: Duel, path: Path) -> None:
        self._draw(model.autoencoder, path)


def refine(
    recipe: Recipe,
    data: DataSet,
    folder: Path,
    scorer: PictureTextScorer,
    *,
    adversarial_weight: float = ADVERSARIAL_WEIGHT,
    device: torch.device = CPU,
) -> PatchAutoencoder:
    """Train the decoder of ``folder/model/vae`` further, from wherever it was.

    Args:
        recipe: How long.
        data: Its training split is used.
        folder: Of the recipe.
        scorer: The perceptual loss looks through it.
        adversarial_weight: 0 trains with the perceptual loss alone, in a folder of its own, to see what each adds.
        device: Where to compute.

    Returns:
        The autoencoder with its new decoder; saved in the stage's own folder.

    Raises:
        ModelNotFoundError: There is no autoencoder yet.
        Stopped: A signal asked for an end; run again to go on.
    """
    source = folder / "model" / "vae"
    if not (source / "config.json").exists():
        raise ModelNotFoundError(f"There is no autoencoder in {folder} to refine: train first.")
    stage = folder / ("refinement" if adversarial_weight else "refinement-perceptual")
    before = folder / "refinement" / "before"
    if not before.exists():  # every later run starts from the same decoder, also when this one took its place meanwhile
        keep(PatchAutoencoder.from_pretrained(source), before)
    torch.manual_seed(recipe.refinement.seed)
    duel = Duel(PatchAutoencoder.from_pretrained(before).float(), PatchCritic())
    trained: Duel = Loop(
        stage,
        stage.name,
        duel,
        RefinementLoss(data, scorer, recipe.refinement.batch, adversarial_weight),
        recipe.refinement,
        recipe.intervals,
        _Sheet(data),
        device=device,
    ).run()
    log.info("decoder: PSNR %.2f dB on held-out pictures", psnr_db(trained.autoencoder, data, Split.HELD_PICTURE))
    keep(trained.autoencoder, stage / "vae")
    return trained.autoencoder


@click.command(help="Refine the autoencoder's decoder by perceptual and adversarial losses; run it again to go on.")
@click.argument("name", metavar="RECIPE", type=click.Choice(sorted(RECIPES)))
@click.option("--no-adversary", is_flag=True, help="With the perceptual loss alone, to compare; nothing is replaced.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all that this process may use otherwise.")
def main(name: str, no_adversary: bool, device: str, threads: int | None) -> None:
    """Parse the command line and refine."""
    cores = begin(threads)
    recipe, folder = RECIPES[name], learning_dir() / name
    with alone(folder / ("refinement-perceptual" if no_adversary else "refinement")):
        try:
            origin = sources.of_recipe(name, learning_dir() / "downloads")
            data = dataset.build(
                folder / "data", origin.concepts, origin.icons, recipe.mix, origin.credits, cores, recipe.scale
            )
            weight = 0.0 if no_adversary else ADVERSARIAL_WEIGHT
            scorer = load_trained(folder)
            refined = refine(recipe, data, folder, scorer, adversarial_weight=weight, device=torch.device(device))
            if not no_adversary:
                keep(refined, folder / "model" / "vae")
        except Stopped as stopped:
            log.info("%s", stopped)
        except GenerationError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
