from __future__ import annotations

import fcntl
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import Tensor, nn

from generation.errors import ModelCorruptError, ModelNotFoundError
from generation.image.blocks import Block
from generation.learning import checkpoints, progress, sheets
from generation.learning.loop import Intervals, Loop, Schedule, Stopped
from generation.learning.training import branch, main
from generation.learning.weights import LearningRates, Optimiser, TrainedWeights

SCHEDULE = Schedule(total_steps=8, batch=4, warmup_steps=2, cooldown_steps=4, average_decay=0.9)


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(Block(8, 2))
        self.head = nn.Linear(8, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.blocks(tokens))[..., 0]


def _model() -> Tiny:
    torch.manual_seed(0)
    return Tiny()


def _loss(model: Tiny, generator: torch.Generator) -> Tensor:
    tokens = torch.randn(4, 5, 8, generator=generator)
    return (model(tokens.bfloat16()).float() - tokens.mean(dim=-1)).square().mean()


def _run(folder: Path, schedule: Schedule) -> Tiny:
    def draw_sheet(_model: Tiny, path: Path) -> None:
        path.touch()

    return Loop(folder, "tiny", _model(), _loss, schedule, Intervals(), draw_sheet).run()


def test_the_rates_rise_stay_and_fall() -> None:
    factors = [SCHEDULE.rate_factor(step) for step in range(8)]
    assert factors == [0.5, 1.0, 1.0, 1.0, 1.0, 0.75, 0.5, 0.25]


def test_training_that_was_interrupted_equals_training_in_one_go(tmp_path: Path) -> None:
    constant = replace(SCHEDULE, cooldown_steps=0)
    whole = _run(tmp_path / "whole", constant)
    _run(tmp_path / "parts", replace(constant, total_steps=3))
    parts = _run(tmp_path / "parts", constant)
    for first, second in zip(whole.state_dict().values(), parts.state_dict().values(), strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert [row[0] for row in progress.read_losses(tmp_path / "parts" / "losses.csv")] == list(range(1, 9))
    assert (tmp_path / "parts" / "sheets" / "step-0000008.png").exists()
    assert (tmp_path / "parts" / "losses.png").stat().st_size > 1000


def test_rows_after_the_checkpoint_are_forgotten_and_half_a_row_is_harmless(tmp_path: Path) -> None:
    _run(tmp_path, replace(SCHEDULE, total_steps=3))
    with (tmp_path / "losses.csv").open("a") as file:
        file.write("4,1.0,0.5,1.0,9.9\n5,1.0,0.5")
    _run(tmp_path, replace(SCHEDULE, total_steps=5))
    assert [row[0] for row in progress.read_losses(tmp_path / "losses.csv")] == [1, 2, 3, 4, 5]


def test_a_broken_checkpoint_gives_way_to_the_one_before(tmp_path: Path) -> None:
    checkpoints.save(tmp_path, {"step": 1})
    checkpoints.save(tmp_path, {"step": 2})
    assert checkpoints.load(tmp_path) == {"step": 2}
    (tmp_path / checkpoints.NAME).write_bytes(b"half of it")
    assert checkpoints.load(tmp_path) == {"step": 1}
    (tmp_path / checkpoints.PREVIOUS).unlink()
    with pytest.raises(ModelCorruptError, match="cannot be read"):
        checkpoints.load(tmp_path)
    (tmp_path / checkpoints.NAME).unlink()
    assert checkpoints.load(tmp_path) is None


def test_a_loss_that_is_not_a_number_ends_the_training_before_it_is_saved(tmp_path: Path) -> None:
    def loss(model: Tiny, generator: torch.Generator) -> Tensor:
        return _loss(model, generator) * float("nan")

    with pytest.raises(ArithmeticError, match="not a number"):
        Loop(tmp_path, "tiny", _model(), loss, SCHEDULE, Intervals(), lambda _model, _path: None).run()
    assert checkpoints.load(tmp_path) is None


def test_the_working_copy_follows_the_master_and_the_average_lags() -> None:
    weights = TrainedWeights(_model(), torch.bfloat16, average_decay=0.9)
    optimiser = Optimiser(weights.master, LearningRates())
    before = weights.master.head.weight.detach().clone()
    for step in range(1, 4):
        _loss(weights.working, torch.Generator().manual_seed(step)).backward()
        assert weights.take_gradients(1.0) > 0
        optimiser.step(1.0)
        weights.publish(step)
    moved = weights.master.head.weight.detach()
    assert weights.working.head.weight.dtype == torch.bfloat16
    torch.testing.assert_close(weights.working.head.weight.detach(), moved.bfloat16())
    average = weights.average.head.weight.detach()
    assert 0 < float((average - before).norm()) < 2 * float((moved - before).norm())
    assert all(parameter.grad is None for parameter in weights.working.parameters())


def test_muon_gets_the_matrices_inside_blocks_only() -> None:
    model = _model()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    Optimiser(model, LearningRates(muon=0.0, adamw=1e-2, weight_decay=0.0)).step(1.0)
    still = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert still == {f"blocks.0.{name}.weight" for name in ("qkv", "out", "up", "down")}


def test_finishing_starts_from_a_copy_and_leaves_the_long_training_alone(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="train first"):
        branch(tmp_path, SCHEDULE, steps=2)
    _run(tmp_path / "diffusion", replace(SCHEDULE, total_steps=3))
    place, schedule = branch(tmp_path, SCHEDULE, steps=2)
    assert (schedule.total_steps, schedule.rate_factor(3), schedule.rate_factor(4)) == (5, 1.0, 0.5)
    _run(place, schedule)
    after = checkpoints.load(place)
    assert after is not None
    assert after["step"] == 5
    long = checkpoints.load(tmp_path / "diffusion")
    assert long is not None
    assert long["step"] == 3
    assert branch(tmp_path, SCHEDULE, steps=2)[0] == place, "an interrupted end goes on"


def test_sigterm_saves_what_was_learned_and_gives_the_signal_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    calls = iter(range(100))

    def loss(model: Tiny, generator: torch.Generator) -> Tensor:
        if next(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return _loss(model, generator)

    with pytest.raises(Stopped, match="step 3"):
        Loop(tmp_path, "tiny", _model(), loss, SCHEDULE, Intervals(), lambda _model, _path: None).run()
    state = checkpoints.load(tmp_path)
    assert state is not None
    assert state["step"] == 3
    assert signal.getsignal(signal.SIGTERM) is before


def test_only_one_training_of_a_recipe_runs_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PALAVER_DATA_DIR", str(tmp_path))
    folder = tmp_path / "learning" / "smoke"
    folder.mkdir(parents=True)
    with (folder / "training.pid").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        result = CliRunner().invoke(main, ["smoke"])
    assert result.exit_code == 1
    assert "A training runs already" in result.output
    assert sorted(path.name for path in folder.iterdir()) == ["training.pid"]


def test_a_sheet_holds_every_picture_in_its_place(tmp_path: Path) -> None:
    pictures = torch.full((3, 3, 8, 8), -1.0)
    pictures[2, 0] = 5.0
    sheets.write(pictures, 2, tmp_path / "sheet.png", captions=("a", "b", "猫"), scale=2)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (32, 2 * (16 + sheets.CAPTION_PX))
        assert sheet.getpixel((0, 0)) == (0, 0, 0)
        assert sheet.getpixel((0, 16 + sheets.CAPTION_PX)) == (255, 0, 0)
        assert sheet.getpixel((31, 16 + sheets.CAPTION_PX)) == (255, 255, 255)
    assert [path.name for path in tmp_path.iterdir()] == ["sheet.png"]
