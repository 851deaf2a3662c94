from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from generation.errors import ModelNotFoundError
from generation.learning import dataset, scorer, sources
from generation.learning.augmentation import augment
from generation.learning.dataset import DataSet, Mix
from generation.learning.matching import PictureTextScorer, choice_accuracy, pool
from generation.learning.recipe import SMOKE
from generation.learning.recognition import Recogniser, accuracies
from generation.learning.scenes import Kind, Split
from generation.learning.scorer import MatchingLoss
from generation.learning.vocabulary import Vocabulary, vocabulary


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    origin = sources.from_shapes()
    folder = tmp_path_factory.mktemp("learning") / "data"
    return dataset.build(folder, origin.concepts, origin.icons, Mix(4, 4, 4, 4, 4), origin.credits, processes=1)


@pytest.fixture(scope="module")
def words(data: DataSet) -> Vocabulary:
    return vocabulary(data, sources.hashed_words)


def _model() -> PictureTextScorer:
    torch.manual_seed(0)
    return PictureTextScorer(stem_width=16, stage_widths=(16, 16), embedding_width=16, text_width=32)


def test_the_vocabulary_names_concepts_and_no_styles(data: DataSet, words: Vocabulary) -> None:
    assert len(words.codes) == len(sources.SHAPES)
    assert set(words.names()) == {name for name, _, _ in sources.SHAPES}
    assert not any("style" in text for text in words.texts)
    assert words.first().has_tokens.all()
    assert not words.first(chinese=True).has_tokens.any()
    assert words.first(chinese=True).sentence.shape == words.first().sentence.shape


def test_pictures_and_captions_come_to_one_space_whatever_the_size(words: Vocabulary) -> None:
    model = _model().eval()
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    found = model.pictures(pictures)
    captions = model.captions(words.first())
    assert found.shape == (3, 16)
    assert captions.shape == (len(words.codes), 16)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    large = torch.nn.functional.interpolate(pictures, (128, 128), mode="nearest")
    assert torch.nn.functional.cosine_similarity(model.pictures(large), found).min() > 0.9


def test_the_mean_of_tokens_leaves_out_what_is_beyond_the_end() -> None:
    tokens = torch.zeros(2, 4, 3)
    tokens[0, 0], tokens[0, 1] = 1.0, 3.0
    assert pool(tokens).tolist() == [[2.0, 2.0, 2.0], [0.0, 0.0, 0.0]]


def test_choices_are_others_and_a_perfect_judge_never_fails() -> None:
    captions = torch.eye(6)
    truth = torch.tensor([0, 5, 3])
    assert choice_accuracy(captions[truth], captions, truth, 4) == 1.0
    assert choice_accuracy(-captions[truth], captions, truth, 4) == 0.0
    blind = torch.randn(500, 6, generator=torch.Generator().manual_seed(0))
    assert abs(choice_accuracy(blind, captions, torch.arange(500) % 6, 4) - 0.25) < 0.06


def test_changed_pictures_are_other_pictures_of_the_same_range() -> None:
    pictures = torch.ones(8, 3, 64, 64)
    pictures[:, :, 20:40, 20:40] = -1.0
    changed = augment(pictures, torch.Generator().manual_seed(0))
    assert changed.shape == pictures.shape
    assert changed.abs().max() <= 1
    assert not torch.allclose(changed[0], changed[1], atol=0.2), "each by its own draw"
    torch.testing.assert_close(changed, augment(pictures, torch.Generator().manual_seed(0)), rtol=0, atol=0)


def test_the_loss_is_random_only_through_its_generator_and_sees_no_held_out_concept(
    data: DataSet, words: Vocabulary
) -> None:
    loss = MatchingLoss(data, words, batch=8)
    model = _model()
    first, again, other = (loss(model, torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2))
    assert first == again != other
    trained = {data.records[position].code for position in data.indices(Split.TRAIN, Kind.SINGLE)}
    assert int(loss._labels.max()) + 1 == len(loss._concepts) == len(trained)


def test_training_recognises_held_out_drawings(data: DataSet, words: Vocabulary, tmp_path: Path) -> None:
    trained = scorer.train(SMOKE, data, words, tmp_path)
    figures = accuracies(Recogniser(trained, data, words), data, words)
    assert figures["real pictures of known concepts, English, 4 choices"] > 0.6
    assert scorer.load_trained(tmp_path).stem.weight.dtype == torch.float32
    assert (tmp_path / "scorer" / "sheets" / f"step-{SMOKE.scoring.total_steps:07d}.png").stat().st_size > 1000


def test_without_a_scorer_the_error_says_how_to_train_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scorer, "SHIPPED_DIR", tmp_path / "none")
    with pytest.raises(ModelNotFoundError, match=r"python -m generation\.learning\.scorer cpu"):
        scorer.load_trained(tmp_path / "cpu")


def test_shipped_weights_are_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = replace(SMOKE, scoring=replace(SMOKE.scoring, total_steps=2))
    monkeypatch.setenv("PALAVER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(scorer, "RECIPES", {"smoke": short})
    monkeypatch.setattr(scorer, "SHIPPED_DIR", tmp_path / "shipped")
    result = CliRunner().invoke(scorer.main, ["smoke", "--ship", "--threads", "1"])
    assert result.exit_code == 0, result.output
    weights = tmp_path / "shipped" / "diffusion_pytorch_model.safetensors"
    parameters = sum(
        parameter.numel() for parameter in PictureTextScorer.from_pretrained(tmp_path / "shipped").parameters()
    )
    assert weights.stat().st_size < 2.2 * parameters + 10_000
    assert sum(parameter.numel() for parameter in PictureTextScorer().parameters()) * 2 < 5e6, "the real one too"


def test_a_recogniser_compares_in_two_spaces_and_speaks_two_languages(data: DataSet, words: Vocabulary) -> None:
    recogniser = Recogniser(_model().eval(), data, words)
    pictures = torch.rand(3, 3, 64, 64) * 2 - 1
    found, english, chinese = recogniser.pictures(pictures), recogniser.captions(), recogniser.captions(chinese=True)
    assert found.shape[1] == english.shape[1] == chinese.shape[1]
    torch.testing.assert_close(found.norm(dim=1), torch.full((3,), 2**0.5))
    torch.testing.assert_close(english.norm(dim=1), torch.full((len(words.codes),), 2**0.5))
    torch.testing.assert_close(recogniser.chances(pictures).sum(dim=1), torch.ones(3))


def test_the_scorer_that_ships_loads_and_is_small() -> None:
    shipped = scorer.SHIPPED_DIR / "diffusion_pytorch_model.safetensors"
    assert shipped.stat().st_size < 5e6
    assert PictureTextScorer.from_pretrained(scorer.SHIPPED_DIR).config["embedding_width"] == 256
