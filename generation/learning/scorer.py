"""Train the scorer that says how well a picture fits a caption, on the training split alone.

    python -m generation.learning.scorer cpu

It goes on from its last checkpoint when it runs again. ``--ship`` writes its weights beside the evaluation, which then
needs no training.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path

import click
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor, nn

from generation.errors import GenerationError, ModelNotFoundError
from generation.learning import dataset, sheets, sources
from generation.learning.augmentation import augment
from generation.learning.dataset import DataSet
from generation.learning.features import CaptionChoices
from generation.learning.loop import CPU, Loop, Stopped
from generation.learning.matching import PictureTextScorer, pool
from generation.learning.recipe import RECIPES, Recipe
from generation.learning.recognition import Recogniser, accuracies
from generation.learning.reconstruction import to_tensor
from generation.learning.scenes import Kind, Split
from generation.learning.vocabulary import Vocabulary, vocabulary
from generation.learning.workspace import alone, begin, keep, learning_dir, parameter_count

log = logging.getLogger("palaver.learning.scorer")

SHIPPED_DIR = Path(__file__).resolve().parents[1] / "evaluation" / "scorer"
CHINESE_SHARE = 0.3
# English is also learned from the sentence vector alone, as Chinese is.
NO_TOKENS_SHARE = 0.35
# Standard deviations of noise on the text features, which keeps a thousand captions from being learned by heart.
TOKEN_NOISE, SENTENCE_NOISE = 0.12, 0.022
LABEL_SMOOTHING = 0.1
MAX_SCALE = 60.0
SHEET_PICTURES = 64


class MatchingLoss:
    """The loss of one batch: which of all trained concepts each picture shows, judged by captions of every one.

    All concepts are choices at every step, not those of the batch alone: a small data set can afford it, and learns
    faster. Captions are drawn anew each time, in two languages.

    Args:
        data: Its single pictures of the training split are used.
        words: The vocabulary.
        batch: Pictures of a step.
    """

    def __init__(self, data: DataSet, words: Vocabulary, batch: int) -> None:
        self._pictures, self._batch = data.pictures, batch
        self._positions = data.indices(Split.TRAIN, Kind.SINGLE)
        trained = sorted({data.records[position].code for position in self._positions})
        self._concepts = torch.arange(len(trained))
        label = {code: index for index, code in enumerate(trained)}
        self._labels = torch.tensor([label[data.records[position].code] for position in self._positions])
        row = {code: index for index, code in enumerate(words.codes)}
        self._english = CaptionChoices([words.english[row[code]] for code in trained])
        self._chinese = CaptionChoices([words.chinese[row[code]] for code in trained])
        self._tokens, self._has_tokens = pool(words.features.tokens), words.features.has_tokens
        self._sentences = words.features.sentence.float()

    def __call__(self, model: PictureTextScorer, generator: torch.Generator) -> Tensor:
        """Compute the loss of a random batch; all randomness comes from a generator on the CPU."""
        dtype, device = model.no_tokens.dtype, model.no_tokens.device
        chosen = torch.randint(len(self._positions), (self._batch,), generator=generator)
        pictures = to_tensor(self._pictures[self._positions[chosen.numpy()]])
        found = model.pictures(augment(pictures, generator).to(device, dtype))
        scale = model.log_scale.float().exp().clamp(max=MAX_SCALE)
        logits = found @ self._captions(model, generator).T * scale
        return F.cross_entropy(logits, self._labels[chosen].to(device), label_smoothing=LABEL_SMOOTHING)

    def _captions(self, model: PictureTextScorer, generator: torch.Generator) -> Tensor:
        """Embed one random caption of every trained concept, ``(concepts, embedding)``."""
        language, which, tokens_fate = torch.rand((3, len(self._concepts)), generator=generator)
        captions = torch.where(
            language < CHINESE_SHARE,
            self._chinese.pick(self._concepts, which),
            self._english.pick(self._concepts, which),
        )
        tokens, sentences = self._tokens[captions], self._sentences[captions]
        tokens = tokens + TOKEN_NOISE * torch.randn(tokens.shape, generator=generator)
        sentences = sentences + SENTENCE_NOISE * torch.randn(sentences.shape, generator=generator)
        device = model.no_tokens.device
        no_tokens = (tokens_fate < NO_TOKENS_SHARE) | ~self._has_tokens[captions]
        return model.texts(tokens.to(device), sentences.to(device), no_tokens.to(device))


class RecognitionSheet:
    """Logs how well held-out pictures are recognised, and draws some with the name that fits them best."""

    def __init__(self, data: DataSet, words: Vocabulary) -> None:
        self._data, self._words = data, words

    @torch.inference_mode()
    def __call__(self, model: PictureTextScorer, path: Path) -> None:
        """Write the sheet as PNG."""
        device = model.no_tokens.device
        model = nn.Module.to(model, CPU)
        recogniser = Recogniser(model, self._data, self._words)
        for figure, value in accuracies(recogniser, self._data, self._words).items():
            log.info("%s: %.3f", figure, value)
        positions = self._data.indices(Split.HELD_PICTURE, Kind.SINGLE)
        positions = positions[:: max(1, len(positions) // SHEET_PICTURES)][:SHEET_PICTURES]
        pictures = to_tensor(self._data.pictures[positions])
        best = (recogniser.pictures(pictures) @ recogniser.captions().T).argmax(dim=1).tolist()
        names = self._words.names()
        sheets.write(pictures, 8, path, [names[index] for index in best])
        nn.Module.to(model, device)


def train(recipe: Recipe, data: DataSet, words: Vocabulary, folder: Path) -> PictureTextScorer:
    """Train the scorer in ``folder/scorer`` from wherever it was, and save it in ``folder/model/scorer``."""
    torch.manual_seed(recipe.scoring.seed)
    model = PictureTextScorer(**asdict(recipe.scorer))
    log.info("scorer: %.1f million parameters", parameter_count(model) / 1e6)
    trained: PictureTextScorer = Loop(
        folder / "scorer",
        "scorer",
        model,
        MatchingLoss(data, words, recipe.scoring.batch),
        recipe.scoring,
        recipe.intervals,
        RecognitionSheet(data, words),
    ).run()
    keep(trained, folder / "model" / "scorer")
    return trained


def load_trained(folder: Path) -> PictureTextScorer:
    """Load the scorer that was trained in a recipe's folder, or else the one that ships.

    Raises:
        ModelNotFoundError: There is neither.
    """
    for place in (folder / "model" / "scorer", SHIPPED_DIR):
        if (place / "config.json").exists():
            judge: PictureTextScorer = nn.Module.to(PictureTextScorer.from_pretrained(place), torch.float32)
            return judge.eval()
    raise ModelNotFoundError(f"There is no scorer: python -m generation.learning.scorer {folder.name} trains one.")


@click.command(help="Train the scorer of pictures and captions; run it again to go on.")
@click.argument("name", metavar="RECIPE", type=click.Choice(sorted(RECIPES)))
@click.option("--ship", is_flag=True, help="Write the weights as fp16 beside the evaluation as well.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; all that this process may use otherwise.")
def main(name: str, ship: bool, threads: int | None) -> None:
    """Parse the command line and train."""
    cores = begin(threads)
    recipe, folder = RECIPES[name], learning_dir() / name
    with alone(folder / "scorer"):
        try:
            origin = sources.of_recipe(name, learning_dir() / "downloads")
            data = dataset.build(
                folder / "data", origin.concepts, origin.icons, recipe.mix, origin.credits, cores, recipe.scale
            )
            trained = train(recipe, data, vocabulary(data, origin.text_encoder()), folder)
            if ship:
                keep(nn.Module.to(trained, torch.float16), SHIPPED_DIR)
        except Stopped as stopped:
            log.info("%s", stopped)
        except GenerationError as error:
            raise click.ClickException(str(error)) from error


if __name__ == "__main__":
    main()
