"""``palaver evaluate image``: how good the image model is, in figures and on a sheet for the eye.

    python -m generation.evaluation.image

Held-out pictures are of two groups: new drawings of known concepts, and concepts never seen. For each of them the
model draws the same concept in the same style from its English and from its Chinese name. The scorer that judges both
real and drawn pictures was trained on the training split alone.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from torch import Tensor

from generation.data_dir import default_data_dir
from generation.errors import GenerationError, ModelNotFoundError
from generation.evaluation import distances, diversity
from generation.evaluation.inception import Inception
from generation.evaluation.report import Figure, Report
from generation.evaluation.samples import Painter
from generation.image.conditioning import Conditioning
from generation.learning import card, dataset, scorer, sheets, shipped, sources
from generation.learning.dataset import DataSet
from generation.learning.diffusion import Guidance
from generation.learning.matching import choice_accuracy
from generation.learning.recipe import RECIPES
from generation.learning.recognition import CHOICES, GROUPS, Recogniser
from generation.learning.reconstruction import to_tensor
from generation.learning.scenes import Kind, Split
from generation.learning.vocabulary import Vocabulary, vocabulary
from generation.learning.workspace import begin, learning_dir

log = logging.getLogger("palaver.evaluation.image")

DIVERSITY_CAPTIONS, DIVERSITY_PICTURES = 24, 4
SHEET_CONCEPTS, SHEET_COLUMNS = 32, 16


@dataclass(frozen=True, slots=True)
class Group:
    """Held-out pictures and what the model makes of their captions.

    Args:
        name: Of the group.
        concepts: ``(pictures,) int64``: what each shows, as an index into the vocabulary.
        styles: ``(pictures,) int64``.
        real: ``(pictures, 3, side, side) float32``.
        drawn: The same shape, from English captions.
        drawn_chinese: The same shape, from Chinese ones.
    """

    name: str
    concepts: Tensor
    styles: Tensor
    real: Tensor
    drawn: Tensor
    drawn_chinese: Tensor


@dataclass(frozen=True, slots=True)
class Options:
    """What is asked of an evaluation.

    Args:
        model: Directory of the model.
        limit: At most so many pictures of each group; None is all.
        guidance: How to draw.
        seed: Of the noise.
        device: Where to compute.
        distances: Whether to compute FID and KID, which takes longest.
    """

    model: Path
    limit: int | None
    guidance: Guidance
    seed: int
    device: torch.device
    distances: bool


def evaluate(options: Options, data: DataSet, words: Vocabulary, judge: Recogniser, out: Path) -> Report:
    """Draw, judge, and write the sheets.

    Args:
        options: What is asked.
        data: With the held-out pictures.
        words: Names of its concepts.
        judge: Says what pictures show.
        out: Where sheets go.

    Returns:
        All figures.
    """
    training = shipped.read_training(options.model)
    if training is None:
        raise ModelNotFoundError(f"There is no exported image model in {options.model}.")
    paint = Painter(options.model, options.guidance, options.device)
    groups = [
        _group(name, split, options, data, words, paint)
        for name, split in GROUPS
        if len(data.indices(split, Kind.SINGLE)) > 1
    ]
    for group in groups:
        _sheet(group, words, out / f"{group.name.replace(' ', '-')}.png")
    figures = [figure for group in groups for figure in _recognition(group, judge, words)]
    figures += _variety(groups, options, words, judge, paint)
    if options.distances:
        figures += _distances(groups, data, Inception(learning_dir() / "downloads", options.device))
    counts = ", ".join(f"{len(group.concepts)} of {group.name}" for group in groups)
    settings = f"{options.guidance.steps} Euler steps, guidance {options.guidance.scale:g}, bf16; pictures: {counts}"
    return Report(_command(options), settings, training.step, tuple(figures))


def _command(options: Options) -> str:
    limit = "" if options.limit is None else f" --limit {options.limit}"
    plain = Guidance(steps=16)
    steps = "" if options.guidance.steps == plain.steps else f" --steps {options.guidance.steps}"
    scale = "" if options.guidance.scale == plain.scale else f" --guidance {options.guidance.scale:g}"
    distances_ = "" if options.distances else " --no-distances"
    return f"palaver evaluate image{limit}{steps}{scale}{distances_}"


def _group(name: str, split: Split, options: Options, data: DataSet, words: Vocabulary, paint: Painter) -> Group:
    positions = data.indices(split, Kind.SINGLE)
    if options.limit is not None and len(positions) > options.limit:
        positions = positions[np.linspace(0, len(positions) - 1, options.limit).astype(np.int64)]
    row = {code: index for index, code in enumerate(words.codes)}
    concepts = torch.tensor([row[data.records[position].code] for position in positions])
    styles = torch.tensor([data.records[position].style for position in positions])
    log.info("%s: drawing %d pictures from English names, then from Chinese ones", name, len(positions))
    english, chinese = words.first(), words.first(chinese=True)
    return Group(
        name,
        concepts,
        styles,
        to_tensor(data.pictures[positions]),
        paint(_rows(english, concepts), styles, options.seed),
        paint(_rows(chinese, concepts), styles, options.seed),
    )


def _rows(features: Conditioning, rows: Tensor) -> Conditioning:
    return Conditioning(features.tokens[rows], features.has_tokens[rows], features.sentence[rows])


def _recognition(group: Group, judge: Recogniser, words: Vocabulary) -> Iterator[Figure]:
    """How often the right caption fits best: of real pictures (what can be reached) and of drawn ones."""
    english, chinese = judge.captions(), judge.captions(chinese=True)
    kinds = (
        ("real", group.real, english, "what can be reached"),
        ("real, Chinese choices", group.real, chinese, ""),
        ("drawn from English", group.drawn, english, "goal: within 0.10 of the real ones"),
        ("drawn from Chinese", group.drawn_chinese, english, "goal: within 0.10 of English"),
    )
    for choices in CHOICES:
        if choices > len(words.codes):
            continue
        for kind, pictures, captions, note in kinds:
            value = choice_accuracy(judge.pictures(pictures), captions, group.concepts, choices)
            yield Figure(f"recognised among {choices}", f"{group.name}, {kind}", value, note)


def _variety(
    groups: list[Group], options: Options, words: Vocabulary, judge: Recogniser, paint: Painter
) -> Iterator[Figure]:
    """How sure the scorer is of each picture, and how alike the pictures of one caption are."""
    for kind, pictures in (
        ("real", torch.cat([group.real for group in groups])),
        ("drawn from English", torch.cat([group.drawn for group in groups])),
    ):
        note = f"by the scorer, over its {len(words.codes)} concepts; higher is better"
        yield Figure("Inception Score", kind, diversity.inception_score(judge.chances(pictures)), note)
    known = groups[0]
    chosen = torch.linspace(0, len(known.concepts) - 1, min(DIVERSITY_CAPTIONS, len(known.concepts))).long()
    features, styles = (
        _rows(words.first(), known.concepts[chosen]),
        torch.full((len(chosen),), paint.denoiser.any_style),
    )
    drawn = [paint(features, styles, options.seed + 1 + index) for index in range(DIVERSITY_PICTURES)]
    yield Figure(
        "MS-SSIM of pairs",
        f"{len(chosen)} captions, {DIVERSITY_PICTURES} seeds each",
        diversity.similarity_within(torch.stack(drawn, dim=1)),
        "lower is more diverse; 1 is always the same picture",
    )


def _distances(groups: list[Group], data: DataSet, inception: Inception) -> Iterator[Figure]:
    """FID and KID between the held-out pictures and drawn ones; training pictures show what can be reached."""
    real = torch.cat([group.real for group in groups])
    held = inception(real)
    trained = data.indices(Split.TRAIN, Kind.SINGLE)
    chosen = trained[np.linspace(0, len(trained) - 1, min(len(real), len(trained))).astype(np.int64)]
    others = (
        ("training pictures", to_tensor(data.pictures[chosen]), "what can be reached"),
        ("drawn from English", torch.cat([group.drawn for group in groups]), "lower is better"),
    )
    for kind, pictures, note in others:
        features = inception(pictures)
        count = f"{len(pictures)} against {len(real)} held out"
        yield Figure("FID", f"{kind}, {count}", distances.frechet(features, held), note)
        yield Figure("KID x 1000", f"{kind}, {count}", 1000 * distances.kernel(features, held), note)


def _sheet(group: Group, words: Vocabulary, path: Path) -> None:
    """Rows of real pictures, of what was drawn from English, and of what was drawn from Chinese."""
    columns = min(SHEET_COLUMNS, len(group.concepts))
    count = min(SHEET_CONCEPTS, len(group.concepts)) // columns * columns
    chosen = torch.linspace(0, len(group.concepts) - 1, count).long()
    names = words.names()
    rows, captions = [], []
    for part in torch.split(chosen, columns):
        rows += [group.real[part], group.drawn[part], group.drawn_chinese[part]]
        captions += [names[concept] for concept in group.concepts[part].tolist()]
        captions += ["drawn"] * columns + ["from Chinese"] * columns
    sheets.write(torch.cat(rows), columns, path, captions)


@click.command(help="Measure the image model: recognisability, FID, KID, variety; draw sheets for the eye.")
@click.option(
    "--model",
    type=click.Path(path_type=Path, file_okay=False),
    default=shipped.EMBEDDED_DIR,
    help="Directory of the model; by default the one that ships.",
)
@click.option("--limit", type=click.IntRange(min=2), help="At most so many held-out pictures of each group.")
@click.option("--steps", type=click.IntRange(1, 1000), default=16, show_default=True, help="Denoising steps.")
@click.option("--guidance", type=float, default=Guidance().scale, show_default=True, help="Guidance scale; 1 is none.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the noise.")
@click.option("--no-distances", is_flag=True, help="Leave out FID and KID, which take longest.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), help="Where figures and sheets go.")
@click.option("--card", "to_card", is_flag=True, help="Write the figures beside the weights and into the model card.")
@click.option("--device", default="cpu", show_default=True, help="Where to compute: cpu, cuda or cuda:N.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all that this process may use otherwise.")
def main(
    model: Path,
    limit: int | None,
    steps: int,
    guidance: float,
    seed: int,
    no_distances: bool,
    out: Path | None,
    to_card: bool,
    device: str,
    threads: int | None,
) -> None:
    """Parse the command line, evaluate, print the table."""
    cores = begin(threads)
    out = out or Path(os.environ.get("PALAVER_DATA_DIR") or default_data_dir()) / "evaluation" / "image"
    out.mkdir(parents=True, exist_ok=True)
    try:
        training = shipped.read_training(model)
        if training is None:
            raise ModelNotFoundError(f"There is no exported image model in {model}.")
        recipe = RECIPES[training.recipe]
        model_of_scorer = scorer.load_trained(learning_dir() / recipe.name)
        origin = sources.of_recipe(recipe.name, learning_dir() / "downloads")
        data = dataset.build(
            learning_dir() / recipe.name / "data",
            origin.concepts,
            origin.icons,
            recipe.mix,
            origin.credits,
            cores,
            recipe.scale,
        )
        words = vocabulary(data, origin.text_encoder())
        judge = Recogniser(model_of_scorer, data, words)
        how = Guidance(steps, guidance)
        options = Options(model, limit, how, seed, torch.device(device), not no_distances)
        report = evaluate(options, data, words, judge, out)
        report.write(out / shipped.EVALUATION)
        if to_card:
            report.write(model / shipped.EVALUATION)
            card.rewrite(model)
    except GenerationError as error:
        raise click.ClickException(str(error)) from error
    click.echo(report.table())
    click.echo(f"{report.settings}; figures and sheets are in {out}")


if __name__ == "__main__":
    main()
