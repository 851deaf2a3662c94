"""Tiles give what the whole picture gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by

from generation.image.tiling import Tiler, TileShape, TileTooLargeError


def run(tiler: Tiler[str]) -> dict[str, torch.Tensor]:
    results: dict[str, torch.Tensor] = {}
    while tiler.busy:
        results |= dict(tiler.step()[1])
    return results


@pytest.mark.parametrize(("height", "width"), [(7, 9), (32, 32), (33, 70), (100, 31), (12, 200)])
@pytest.mark.parametrize("blend", [True, False])
def test_tiles_of_a_local_map_give_the_whole(height: int, width: int, blend: bool) -> None:
    def soften(pixels: torch.Tensor) -> torch.Tensor:
        blurred = F.avg_pool2d(F.pad(pixels, (2, 2, 2, 2), mode="replicate"), 5, 1)
        return F.interpolate(blurred, scale_factor=2, mode="nearest")

    picture = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    tiler: Tiler[str] = Tiler(soften, 2, TileShape(side=32, overlap=12, batch_area=3000, blend=blend))
    tiler.add("a", picture)
    tiler.add("b", picture * 2)
    expected = soften(picture[None])[0]
    results = run(tiler)
    # Where tiles fade into each other, the edge of one that knows less still counts a little.
    tolerance = 0.2 if blend else 1e-6
    assert float((results["a"] - expected).abs().max()) <= tolerance
    assert float((results["b"] - 2 * expected).abs().max()) <= 2 * tolerance


def test_tiles_of_several_pictures_share_passes() -> None:
    sizes: list[int] = []

    def count(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return pixels

    tiler: Tiler[str] = Tiler(count, 1, TileShape(side=8, overlap=2, batch_area=6 * 64, blend=True))
    for name in "abc":
        tiler.add(name, torch.zeros(1, 14, 14))
    assert set(run(tiler)) == set("abc")
    assert sizes == [6, 6]


def test_without_memory_tiles_become_fewer_and_then_smaller() -> None:
    areas: list[int] = []

    def short(pixels: torch.Tensor) -> torch.Tensor:
        if pixels.numel() > 600:
            raise torch.OutOfMemoryError("not today")
        areas.append(pixels.numel())
        return pixels

    tiler: Tiler[str] = Tiler(short, 1, TileShape(side=64, overlap=8, batch_area=64 * 64 * 4, blend=False))
    picture = torch.rand(1, 64, 64)
    tiler.add("a", picture)
    tiler.add("b", picture)
    results = run(tiler)
    assert torch.equal(results["a"], picture)
    assert torch.equal(results["b"], picture)
    assert max(areas) <= 600


def test_what_never_fits_is_named_and_the_rest_goes_on() -> None:
    def short(pixels: torch.Tensor) -> torch.Tensor:
        if bool((pixels == 7).any()):
            raise torch.OutOfMemoryError("not this one")
        return pixels

    tiler: Tiler[str] = Tiler(short, 1, TileShape(side=16, overlap=4, batch_area=256, blend=False))
    tiler.add("bad", torch.full((1, 16, 16), 7.0))
    tiler.add("good", torch.zeros(1, 16, 16))
    with pytest.raises(TileTooLargeError) as raised:
        run(tiler)
    assert raised.value.key == "bad"
    assert set(run(tiler)) == {"good"}
