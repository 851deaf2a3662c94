"""What ships: whole, small enough, loads as any model of diffusers does, and training goes on from it."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from diffusers import FlowMatchEulerDiscreteScheduler

from generation.errors import ModelCorruptError, ModelNotFoundError
from generation.image.autoencoder import PatchAutoencoder
from generation.image.denoiser import TokenDenoiser
from generation.learning import checkpoints, dataset, export, progress, shipped, sources, training
from generation.learning.dataset import Mix
from generation.learning.recipe import GPU, SMOKE, AutoencoderShape, DenoiserShape, Recipe
from generation.learning.shipped import Start
from generation.learning.workspace import parameter_count

TINY = replace(
    SMOKE,
    mix=Mix(background=2, recolour=2, place=2, count=2, pair=2),
    autoencoder=AutoencoderShape(
        latent_channels=4, encoder_width=32, encoder_layers=1, decoder_width=32, decoder_layers=1, heads=2
    ),
    reconstruction=replace(SMOKE.reconstruction, total_steps=4, batch=8),
    denoiser=DenoiserShape(width=32, layers=1, heads=2),
    diffusion=replace(SMOKE.diffusion, total_steps=6, batch=8, warmup_steps=2, cooldown_steps=0),
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which the whole chain has run on a tiny recipe."""
    folder = tmp_path_factory.mktemp("learning") / "smoke"
    training.train(TINY, sources.from_shapes(), folder, processes=1)
    return folder


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    target = trained.parent / "embedded"
    export.export(TINY, trained, target)
    return target


def test_it_loads_in_diffusers_layout_in_half_the_bytes(trained: Path, exported: Path) -> None:
    index = json.loads((exported / "model_index.json").read_text())
    assert index["_class_name"] == "PalaverIconPipeline"
    assert index["vae"] == ["generation.image.autoencoder", "PatchAutoencoder"]
    assert index["transformer"] == ["generation.image.denoiser", "TokenDenoiser"]
    state = checkpoints.load(trained / "diffusion")
    assert state is not None
    found = TokenDenoiser.from_pretrained(exported / "transformer").state_dict()
    for name, value in state["weights"]["average"].items():
        torch.testing.assert_close(found[name].float(), value, rtol=1e-3, atol=1e-4)
    vae = PatchAutoencoder.from_pretrained(exported / "vae")
    assert float(vae.latents_std.float().min()) > 0
    FlowMatchEulerDiscreteScheduler.from_pretrained(exported / "scheduler")
    weights = list(exported.rglob("*.safetensors"))
    numbers = sum(p.numel() for p in vae.parameters()) + sum(value.numel() for value in found.values())
    assert sum(path.stat().st_size for path in weights) < 2.2 * numbers
    assert all(path.stat().st_mode & 0o044 == 0o044 for path in weights), "readable by everybody"


def test_large_models_are_written_in_several_files(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "SHARD_SIZE", "30KB")
    export.export(TINY, trained, tmp_path / "embedded")
    assert len(list((tmp_path / "embedded" / "transformer").glob("*.safetensors"))) > 1
    assert shipped.start_for("smoke", tmp_path / "embedded") is not None


def test_the_card_credits_every_set_and_says_that_figures_are_missing(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "Drawn shapes" in card
    assert "the authors of Palaver" in card
    assert "Not evaluated yet" in card


def test_the_card_takes_its_figures_from_the_evaluation(exported: Path, tmp_path: Path) -> None:
    record = shipped.read_training(exported)
    assert record is not None
    figure = {"name": "FID", "group": "held-out", "value": 12.34, "note": "lower is better"}
    evaluation = {"step": record.step, "command": "palaver evaluate image", "settings": "16 steps", "figures": [figure]}
    path = exported / shipped.EVALUATION
    path.write_text(json.dumps(evaluation))
    try:
        result = CliRunner().invoke(export.main, ["smoke", "--to", str(exported), "--card-only"])
        assert result.exit_code == 0, result.output
        assert "| FID | held-out | 12.3 | lower is better |" in (exported / "README.md").read_text()
        path.write_text(json.dumps(evaluation | {"step": record.step + 1}))
        CliRunner().invoke(export.main, ["smoke", "--to", str(exported), "--card-only"])
        assert "Not evaluated yet" in (exported / "README.md").read_text(), "figures of other weights are not shown"
    finally:
        path.unlink()


def test_weights_that_fp16_cannot_hold_are_not_left_behind(trained: Path, tmp_path: Path) -> None:
    broken = tmp_path / "smoke"
    state = checkpoints.load(trained / "diffusion")
    assert state is not None
    state["weights"]["average"]["to_velocity.weight"] += 1e6
    checkpoints.save(broken / "diffusion", state)
    for name in ("model", "data"):
        (broken / name).symlink_to(trained / name)
    with pytest.raises(ModelCorruptError, match="out of range"):
        export.export(TINY, broken, tmp_path / "embedded")
    assert not (tmp_path / "embedded").exists()
    assert not (tmp_path / "embedded.partial").exists()


def test_nothing_trained_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="train first"):
        export.export(TINY, tmp_path, tmp_path / "embedded")
    with pytest.raises(ModelNotFoundError, match="no checkpoint"):
        export.newest(tmp_path)


def test_the_training_that_went_furthest_is_exported(tmp_path: Path) -> None:
    for name, step in (("diffusion", 7), ("finish-0000005", 9), ("finish-0000002", 3)):
        checkpoints.save(tmp_path / name, {"step": step})
    assert export.newest(tmp_path) == tmp_path / "finish-0000005"


def _start(folder: Path) -> Start:
    start = shipped.start_for("smoke", folder)
    assert start is not None
    return start


def _longer(steps: int) -> Recipe:
    return replace(TINY, diffusion=replace(TINY.diffusion, total_steps=steps))


def test_training_on_another_machine_goes_on_from_what_ships(exported: Path, tmp_path: Path) -> None:
    start = _start(exported)
    assert start.training.step == 6
    training.train(_longer(9), sources.from_shapes(), tmp_path, processes=1, start=start)
    rows = progress.read_losses(tmp_path / "diffusion" / "losses.csv")
    assert [row[0] for row in rows] == [7, 8, 9], "steps are counted over all machines"
    assert rows[0][3] == 0.5, "new momenta are warmed up"
    assert not (tmp_path / "autoencoder").exists(), "the denoiser knows the shipped autoencoder's latents"
    again = PatchAutoencoder.from_pretrained(tmp_path / "model" / "vae")
    assert torch.equal(again.embed.weight, start.autoencoder.embed.weight)
    later = export.export(TINY, tmp_path, tmp_path / "embedded")
    assert later.step == 9


def test_what_was_interrupted_after_a_shipped_start_goes_on_with_its_warm_up(exported: Path, tmp_path: Path) -> None:
    training.train(_longer(7), sources.from_shapes(), tmp_path / "parts", processes=1, start=_start(exported))
    training.train(_longer(9), sources.from_shapes(), tmp_path / "parts", processes=1)
    training.train(_longer(9), sources.from_shapes(), tmp_path / "whole", processes=1, start=_start(exported))
    parts, whole = (
        TokenDenoiser.from_pretrained(tmp_path / name / "model" / "transformer").state_dict()
        for name in ("parts", "whole")
    )
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=0, atol=0, msg=name)


def test_a_shipped_start_is_used_only_where_nothing_else_is(
    exported: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shipped.start_for, "__defaults__", (exported,))
    assert training.usual_start(TINY, tmp_path) is not None
    assert training.usual_start(TINY, trained) is None, "its own checkpoints come first"
    assert training.usual_start(replace(TINY, name="gpu"), tmp_path) is None, "another recipe has other shapes"
    assert shipped.start_for("smoke", tmp_path) is None, "nothing ships"
    (tmp_path / shipped.TRAINING).write_text("{}")
    with pytest.raises(ModelCorruptError, match="export the model again"):
        shipped.start_for("smoke", tmp_path)


def test_from_nothing_ignores_what_ships(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAVER_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(shipped.start_for, "__defaults__", (exported,))
    monkeypatch.setattr(training, "RECIPES", {"smoke": _longer(8)})
    monkeypatch.setattr(sources, "of_recipe", lambda _name, _downloads_dir: sources.from_shapes())
    table = tmp_path / "learning" / "smoke" / "diffusion" / "losses.csv"
    result = CliRunner().invoke(training.main, ["smoke", "--from-nothing", "--threads", "1"])
    assert result.exit_code == 0, result.output
    assert progress.read_losses(table)[0][0] == 1


def test_the_large_recipe_has_larger_pictures_and_latents_and_all_else_the_same(tmp_path: Path) -> None:
    """The logic of the recipe for a GPU, on a shape that a CPU computes in a moment."""
    shape = replace(TINY.autoencoder, picture_px=128, latent_channels=GPU.autoencoder.latent_channels)
    large = replace(TINY, name="gpu", autoencoder=shape, scale=GPU.scale)
    trained = training.train(large, sources.from_shapes(), tmp_path, processes=1)
    assert (trained.config.latent_px, trained.config.latent_channels) == (16, 16)
    assert dataset.load(tmp_path / "data").pictures.shape[1:] == (128, 128, 3)
    record = export.export(large, tmp_path, tmp_path / "embedded")
    assert (record.recipe, record.step) == ("gpu", 6)


def test_what_a_gpu_learns_can_ship() -> None:
    autoencoder = PatchAutoencoder(**asdict(GPU.autoencoder))
    denoiser = TokenDenoiser(latent_px=16, latent_channels=16, **asdict(GPU.denoiser))
    numbers = parameter_count(autoencoder) + parameter_count(denoiser)
    assert 2 * numbers < export.MAX_TOTAL_BYTES - 10**6
    assert parameter_count(denoiser) <= 60e6


def test_a_compiled_training_learns_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The graph is traced as on a GPU; code is not generated from it, which takes minutes on a busy CPU."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager", fullgraph=True))
    short = replace(TINY, diffusion=replace(TINY.diffusion, total_steps=3))
    for name in ("plain", "compiled"):
        recipe = replace(short, compiled=name == "compiled")
        training.train(recipe, sources.from_shapes(), tmp_path / name, processes=1)
    plain, compiled = (
        [row[2] for row in progress.read_losses(tmp_path / name / "diffusion" / "losses.csv")]
        for name in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, rel=0.02)
