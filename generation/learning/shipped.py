"""The image model that ships with the product: what its directory holds, and how training goes on from it.

model_index.json    names the components, as any pipeline of diffusers does
vae/                PatchAutoencoder, fp16
transformer/        TokenDenoiser, fp16: the running average of the weights
scheduler/          FlowMatchEulerDiscreteScheduler
training.json       how far it is trained, on what, and the words for its styles
evaluation.json     every figure of the model card, once it has been evaluated
README.md           the model card
"""

from __future__ import annotations

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from generation.errors import ModelCorruptError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.denoiser import TokenDenoiser
from generation.learning.concepts import Credit

log = logging.getLogger("palaver.learning.shipped")

EMBEDDED_DIR = Path(__file__).resolve().parents[1] / "image" / "embedded"
TRAINING, EVALUATION, CARD = "training.json", "evaluation.json", "README.md"
VERSION = 1


@dataclass(frozen=True, slots=True)
class Training:
    """How a shipped model came to be.

    Args:
        recipe: Name of its recipe.
        step: Steps of the denoiser so far, over all machines it was trained on.
        pictures: Pictures it has seen in them.
        seconds: Time those steps took.
        loss: Mean of the last hundred steps' losses; None where they are not known.
        data: Fingerprint of the data set.
        styles: The word for each style, in the order of the denoiser's style indices.
        credits: Whom the icons' licences ask to name.
        version: Of this record.
    """

    recipe: str
    step: int
    pictures: int
    seconds: float
    loss: float | None
    data: str
    styles: tuple[str, ...]
    credits: tuple[Credit, ...]
    version: int = VERSION


def write_training(folder: Path, training: Training) -> None:
    """Write the record beside the weights."""
    text = json.dumps(asdict(training), ensure_ascii=False, indent=1)
    (folder / TRAINING).write_text(text + "\n", encoding="utf-8")


def read_training(folder: Path) -> Training | None:
    """Read the record of a shipped model; None where there is no model.

    Raises:
        ModelCorruptError: There is one that this version cannot read.
    """
    path = folder / TRAINING
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_text("utf-8"))
        if values["version"] != VERSION:
            raise ValueError(values["version"])  # noqa: TRY301 - one road for all that is broken
        credits_ = tuple(Credit(**credit) for credit in values.pop("credits"))
        return Training(**values | {"styles": tuple(values["styles"]), "credits": credits_})
    except (KeyError, TypeError, ValueError) as error:
        raise ModelCorruptError(f"{path} is not a record that this version reads: export the model again.") from error


@dataclass(frozen=True, slots=True)
class Start:
    """A shipped model from which training goes on.

    Args:
        training: How far it is.
        autoencoder: Its latents are those the denoiser knows; float32.
        denoiser: float32.
    """

    training: Training
    autoencoder: PatchAutoencoder
    denoiser: TokenDenoiser


def start_for(recipe: str, folder: Path = EMBEDDED_DIR) -> Start | None:
    """Load the shipped model for a recipe to go on from, or None where none ships or it is another recipe's."""
    training = read_training(folder)
    if training is None:
        return None
    if training.recipe != recipe:
        log.info("the shipped model is of the recipe %s: %s begins from nothing", training.recipe, recipe)
        return None
    log.info("going on from the shipped model: %d steps of the denoiser are done", training.step)
    return Start(
        training,
        PatchAutoencoder.from_pretrained(folder / "vae").float(),
        TokenDenoiser.from_pretrained(folder / "transformer").float(),
    )
