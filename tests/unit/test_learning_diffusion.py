from __future__ import annotations

from pathlib import Path

import pytest
import torch

from generation.image.autoencoder import PatchAutoencoder
from generation.image.blocks import patchify, unpatchify
from generation.image.denoiser import TokenDenoiser
from generation.learning import dataset, features, sources
from generation.learning.dataset import DataSet, Mix
from generation.learning.diffusion import FlowLoss, Guidance, sample
from generation.learning.reconstruction import ReconstructionLoss, psnr_db, to_tensor
from generation.learning.scenes import Split

AUTOENCODER = {
    "latent_channels": 4,
    "encoder_width": 32,
    "encoder_layers": 1,
    "decoder_width": 32,
    "decoder_layers": 1,
    "heads": 2,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> DataSet:
    origin = sources.from_shapes()
    folder = tmp_path_factory.mktemp("learning") / "data"
    mix = Mix(background=4, recolour=4, place=4, count=4, pair=4)
    return dataset.build(folder, origin.concepts, origin.icons, mix, origin.credits, processes=1)


@pytest.fixture
def autoencoder() -> PatchAutoencoder:
    torch.manual_seed(0)
    return PatchAutoencoder(**AUTOENCODER)


def _denoiser() -> TokenDenoiser:
    torch.manual_seed(0)
    model = TokenDenoiser(latent_channels=4, width=32, layers=1, heads=2)
    torch.nn.init.normal_(model.to_velocity.weight, std=0.1)
    return model


def test_patches_are_put_back_where_they_were() -> None:
    pictures = torch.randn(2, 3, 16, 24)
    patches = patchify(pictures, 8)
    assert patches.shape == (2, 6, 192)
    assert torch.equal(patches[0, 1].view(8, 8, 3).permute(2, 0, 1), pictures[0, :, :8, 8:16])
    assert torch.equal(unpatchify(patches, 8, rows=2), pictures)


def test_the_autoencoder_keeps_shapes_and_survives_saving(autoencoder: PatchAutoencoder, tmp_path: Path) -> None:
    pictures = torch.rand(2, 3, 64, 64) * 2 - 1
    mean, log_variance = autoencoder.encode(pictures)
    assert mean.shape == log_variance.shape == (2, 4, 8, 8)
    autoencoder.latents_mean.fill_(0.5)
    autoencoder.latents_std.fill_(2.0)
    assert torch.allclose(autoencoder.denormalise(autoencoder.normalise(mean)), mean, atol=1e-6)
    autoencoder.save_pretrained(tmp_path)
    again = PatchAutoencoder.from_pretrained(tmp_path)
    assert torch.equal(again.latents_std, autoencoder.latents_std)
    assert torch.equal(again.decode(mean), autoencoder.decode(mean))


def test_latents_are_normalised_over_the_training_pictures(
    autoencoder: PatchAutoencoder, data: DataSet, tmp_path: Path
) -> None:
    latents = features.latents(tmp_path, data, autoencoder, "a")
    trained = latents[torch.from_numpy(data.indices(Split.TRAIN))].float()
    assert trained.mean(dim=(0, 2, 3)).abs().max() < 0.01
    assert (trained.std(dim=(0, 2, 3)) - 1).abs().max() < 0.01
    mean = autoencoder.latents_mean.clone()
    autoencoder.latents_mean.zero_()
    assert torch.equal(features.latents(tmp_path, data, autoencoder, "a"), latents)
    assert torch.equal(autoencoder.latents_mean, mean)


def test_the_reconstruction_loss_is_random_only_through_its_generator(
    autoencoder: PatchAutoencoder, data: DataSet
) -> None:
    loss = ReconstructionLoss(data, batch=4)
    first, again, other = (loss(autoencoder, torch.Generator().manual_seed(seed)).item() for seed in (1, 1, 2))
    assert first == again != other
    assert 0 < psnr_db(autoencoder, data, Split.TRAIN, limit=4) < 40


def test_pictures_become_tensors_in_range(data: DataSet) -> None:
    pictures = to_tensor(data.pictures[:2])
    assert pictures.shape == (2, 3, 64, 64)
    assert -1 <= float(pictures.min()) < float(pictures.max()) == 1.0


def test_chinese_captions_have_a_sentence_and_no_tokens(data: DataSet, tmp_path: Path) -> None:
    captions = features.caption_features(tmp_path, data, sources.hashed_words)
    taken = captions.take(torch.tensor([0, data.english]))
    assert taken.has_tokens.tolist() == [True, False]
    assert taken.tokens[0].abs().sum() > 0
    assert taken.tokens[1].abs().sum() == 0
    assert torch.allclose(taken.sentence.float().norm(dim=-1), torch.ones(2), atol=1e-2)


def test_the_flow_loss_starts_at_the_size_of_the_target_and_is_reproducible(data: DataSet, tmp_path: Path) -> None:
    captions = features.caption_features(tmp_path, data, sources.hashed_words)
    latents = torch.randn(len(data.records), 4, 8, 8)
    loss = FlowLoss(data, latents, captions, batch=64)
    model = TokenDenoiser(latent_channels=4, width=32, layers=1, heads=2)
    first, again = (loss(model, torch.Generator().manual_seed(3)).item() for _ in range(2))
    # An untrained model says zero, and noise minus clean has variance 2.
    assert first == again == pytest.approx(2.0, rel=0.1)


def test_each_sample_of_a_batch_is_independent_of_its_neighbours() -> None:
    model, condition = _denoiser().eval(), sources.hashed_words(["a red ball", "house", "球"])
    style = torch.tensor([0, 3, 1])
    latents, sigma = torch.randn(3, 4, 8, 8), torch.tensor([0.1, 0.5, 0.9])
    dropped = torch.tensor([False, False, False])

    def velocity(rows: slice) -> torch.Tensor:
        return model(
            latents[rows],
            sigma[rows],
            condition.tokens[rows],
            condition.sentence[rows],
            style[rows],
            text_dropped=~condition.has_tokens[rows],
            sentence_dropped=dropped[rows],
        )

    together = velocity(slice(None))
    alone = torch.cat([velocity(slice(row, row + 1)) for row in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


def test_dropped_conditions_have_no_influence() -> None:
    model = _denoiser().eval()
    everyone = torch.tensor([True])

    def velocity(text: str) -> torch.Tensor:
        condition = sources.hashed_words([text])
        return model(
            torch.ones(1, 4, 8, 8),
            torch.tensor([0.5]),
            condition.tokens,
            condition.sentence,
            torch.tensor([2]),
            text_dropped=everyone,
            sentence_dropped=everyone,
        )

    assert torch.equal(velocity("ball"), velocity("house"))


def test_sampling_depends_on_seed_and_text() -> None:
    model = _denoiser().eval()

    def latents(text: str, seed: int) -> torch.Tensor:
        guidance = Guidance(steps=3, scale=2.0)
        return sample(model, sources.hashed_words([text]), torch.tensor([0]), (4, 8, 8), guidance, seed)

    assert latents("ball", 1).shape == (1, 4, 8, 8)
    assert torch.equal(latents("ball", 1), latents("ball", 1))
    assert not torch.equal(latents("ball", 1), latents("ball", 2))
    assert not torch.equal(latents("ball", 1), latents("house", 1))
