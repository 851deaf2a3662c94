"""The model card of what ships: data with licences and credits, limits, and every figure with its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from generation.errors import ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.denoiser import TokenDenoiser
from generation.learning import shipped
from generation.learning.shipped import Training
from generation.learning.workspace import parameter_count

EVALUATE = "palaver evaluate image"


def rewrite(folder: Path) -> None:
    """Write the card of a model directory anew.

    Raises:
        ModelNotFoundError: There is no model in it.
    """
    if shipped.read_training(folder) is None:
        raise ModelNotFoundError(f"There is no exported model in {folder}.")
    autoencoder = PatchAutoencoder.from_pretrained(folder / "vae")
    denoiser = TokenDenoiser.from_pretrained(folder / "transformer")
    write(folder, parameter_count(autoencoder), parameter_count(denoiser))


def write(folder: Path, autoencoder_parameters: int, denoiser_parameters: int) -> None:
    """Write ``README.md`` into a model directory from its records.

    Args:
        folder: With ``training.json`` and, once it has been evaluated, ``evaluation.json``.
        autoencoder_parameters: How many numbers it has learned.
        denoiser_parameters: Likewise.
    """
    training = shipped.read_training(folder)
    if training is None:
        raise ModelNotFoundError(f"There is no exported model in {folder}.")
    path = folder / shipped.EVALUATION
    evaluation = json.loads(path.read_text("utf-8")) if path.exists() else None
    sections = (
        _head(training, autoencoder_parameters, denoiser_parameters),
        _data(training),
        _figures(training, evaluation),
        LIMITS,
    )
    (folder / shipped.CARD).write_text("\n".join(sections), encoding="utf-8")


def _head(training: Training, autoencoder_parameters: int, denoiser_parameters: int) -> str:
    return f"""---
license: apache-2.0
language: [en, zh]
pipeline_tag: text-to-image
library_name: diffusers
---

# Palaver's embedded image model

Draws icons of things by their name, in English or Chinese: animals, food, plants, vehicles, faces, places, objects; on
white or on a coloured background, one to four of a thing, or two things side by side. It is trained from nothing by the
recipe `{training.recipe}` of `generation/learning` (docs/image-training.md); the text encoders are frozen.

| part | what | parameters |
|---|---|---|
| `vae/` | autoencoder of transformer blocks over patches, with a KL term | {autoencoder_parameters / 1e6:.1f} million |
| `transformer/` | transformer that predicts the velocity of rectified flow | {denoiser_parameters / 1e6:.1f} million |
| text encoders, not in here | all-MiniLM-L6-v2 (Apache-2.0), multilingual USE v3 (Apache-2.0), both frozen | |

Styles, as a word for the request: {", ".join(training.styles)}.
"""


def _data(training: Training) -> str:
    rows = "\n".join(
        f"| [{credit.title}]({credit.url}) | {credit.author} | {credit.licence} |" for credit in training.credits
    )
    return f"""## Data

Icons of these sets, rasterised, single and in composed scenes (data set `{training.data}`). Their names and keywords
come from emojibase-data (MIT), which takes them from Unicode CLDR. Sets under share-alike licences are left out.

| set | by | licence |
|---|---|---|
{rows}

Where a licence is CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/): the icons were rasterised, recoloured,
composed into scenes, and used to train this model.
"""


def _figures(training: Training, evaluation: dict[str, Any] | None) -> str:
    loss = "" if training.loss is None else f", loss {training.loss:.3f} (mean of the last hundred steps)"
    trained = (
        f"Trained for {training.step:,} steps, {training.pictures:,} pictures, {training.seconds / 3600:.1f} hours"
        f"{loss}: `python -m generation.learning.training {training.recipe}`.\n"
    )
    if evaluation is None or evaluation["step"] != training.step:
        return f"## Figures\n\n{trained}\nNot evaluated yet at this step: `{EVALUATE}`.\n"
    rows = "\n".join(
        f"| {figure['name']} | {figure['group']} | {_value(figure['value'])} | {figure['note']} |"
        for figure in evaluation["figures"]
    )
    return f"""## Figures

{trained}
All by `{evaluation["command"]}` ({evaluation["settings"]}).

| figure | pictures | value | |
|---|---|---|---|
{rows}
"""


def _value(value: float) -> str:
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


LIMITS = """## Limits

- It knows the thousand or so things that emoji show. Other words are drawn as the nearest thing it knows, or as nothing
  that has a name.
- Icons only: no photographs, no writing, no likeness of a person, no trademarks.
- Counts beyond four, several relations in one sentence and fine detail are beyond it.
- Chinese and other languages reach it through one vector for the whole sentence: arrangements are followed less well
  than in English.
- The icon sets show people and foods as their designers chose to; the model repeats that choice.
"""
