from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from generation.errors import ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.learning import dataset, refinement, sources
from generation.learning.dataset import DataSet, Mix
from generation.learning.matching import PictureTextScorer
from generation.learning.recipe import SMOKE
from generation.learning.refinement import Duel, PatchCritic, RefinementLoss
from generation.learning.workspace import keep

TINY = {
    "latent_channels": 4,
    "encoder_width": 32,
    "encoder_layers": 1,
    "decoder_width": 32,
    "decoder_layers": 1,
    "heads": 2,
}
RECIPE = replace(SMOKE, refinement=replace(SMOKE.refinement, total_steps=4, batch=4))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    origin = sources.from_shapes()
    folder = tmp_path_factory.mktemp("learning") / "data"
    return dataset.build(folder, origin.concepts, origin.icons, Mix(4, 4, 4, 4, 4), origin.credits, processes=1)


def _scorer() -> PictureTextScorer:
    torch.manual_seed(1)
    return PictureTextScorer(stem_width=16, stage_widths=(16, 16), embedding_width=16, text_width=32)


def _autoencoder() -> PatchAutoencoder:
    torch.manual_seed(0)
    return PatchAutoencoder(**TINY)


def _gradients(data: DataSet, weight: float) -> dict[str, torch.Tensor | None]:
    duel = Duel(_autoencoder(), PatchCritic(16))
    RefinementLoss(data, _scorer(), 4, weight)(duel.bfloat16(), torch.Generator().manual_seed(0)).backward()
    return {name: parameter.grad for name, parameter in duel.named_parameters()}


def test_decoder_and_critic_learn_and_the_encoder_does_not(data: DataSet) -> None:
    gradients = _gradients(data, weight=0.1)
    for name, gradient in gradients.items():
        frozen = name.startswith(("autoencoder.embed", "autoencoder.encoder", "autoencoder.to_moments"))
        assert (gradient is None) == frozen, name


def test_the_critic_learns_from_its_own_loss_alone(data: DataSet) -> None:
    """Its gradients are the same however much the decoder minds its opinion."""
    little, much = _gradients(data, weight=0.1), _gradients(data, weight=10.0)
    for name, gradient in little.items():
        if name.startswith("critic"):
            assert gradient is not None
            assert torch.equal(gradient, much[name]), name
    assert not torch.equal(little["autoencoder.to_pixels.weight"], much["autoencoder.to_pixels.weight"])


def test_without_an_adversary_the_critic_learns_nothing(data: DataSet) -> None:
    gradients = _gradients(data, weight=0.0)
    assert all(gradient is None for name, gradient in gradients.items() if name.startswith("critic"))
    assert gradients["autoencoder.to_pixels.weight"] is not None


def test_refining_changes_the_decoder_and_no_latent(data: DataSet, tmp_path: Path) -> None:
    autoencoder = _autoencoder()
    autoencoder.latents_std.fill_(2.0)
    keep(autoencoder, tmp_path / "model" / "vae")
    refined = refinement.refine(RECIPE, data, tmp_path, _scorer())
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    assert torch.equal(refined.encode(pictures)[0], autoencoder.encode(pictures)[0])
    assert torch.equal(refined.latents_std, autoencoder.latents_std)
    latents = torch.randn(2, 4, 8, 8)
    assert not torch.equal(refined.decode(latents), autoencoder.decode(latents))
    again = PatchAutoencoder.from_pretrained(tmp_path / "refinement" / "vae")
    assert torch.equal(again.decode(latents), refined.decode(latents))
    kept = PatchAutoencoder.from_pretrained(tmp_path / "refinement" / "before")
    assert torch.equal(kept.decode(latents), autoencoder.decode(latents)), "what was before can be compared"


def test_refining_nothing_is_a_clear_error(data: DataSet, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="train first"):
        refinement.refine(RECIPE, data, tmp_path, _scorer())


def test_each_way_of_refining_starts_from_the_same_decoder(data: DataSet, tmp_path: Path) -> None:
    autoencoder = _autoencoder()
    keep(autoencoder, tmp_path / "model" / "vae")
    refined = refinement.refine(RECIPE, data, tmp_path, _scorer())
    keep(refined, tmp_path / "model" / "vae")
    still = replace(RECIPE, refinement=replace(RECIPE.refinement, total_steps=0))
    again = refinement.refine(still, data, tmp_path, _scorer(), adversarial_weight=0.0)
    assert torch.equal(again.to_pixels.weight, autoencoder.to_pixels.weight)
    assert not torch.equal(again.to_pixels.weight, refined.to_pixels.weight)
