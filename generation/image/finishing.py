"""From denoised latents to encoded pictures: decoded, pasted, enlarged and compressed, a piece at a time."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import torch
from torch import Tensor

from generation.image.drawing import Drawing, Kept
from generation.image.family import Family
from generation.image.pictures import encode_png
from generation.image.tiling import Tiler, TileShape
from generation.image.upscaler import Upscaler

#: Pixels that one decoding pass makes, by kind of device: a piece must not hold up the others' denoising for long.
_DECODE_PIXELS = {"cpu": 512 * 512, "cuda": 4 * 1024 * 1024}


@dataclass(eq=False, slots=True)
class Unfinished:
    """A picture that is denoised and not yet encoded; compared by identity.

    Args:
        drawing: Whose picture.
        index: Its number among the request's pictures.
        seed: What is reported with it.
        kept: What stays of an initial picture.
        factors: Enlargements that are still to come, one after the other.
    """

    drawing: Drawing
    index: int
    seed: int
    kept: Kept | None = None
    factors: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Print:
    """A finished picture.

    Args:
        of: Which.
        data: As PNG.
        width_px: Width.
        height_px: Height.
    """

    of: Unfinished
    data: bytes
    width_px: int
    height_px: int


class Finishing:
    """Everything after the last denoising step; driven by ``step`` between two denoising passes.

    Args:
        upscaler: Enlarges.
        device: Where it computes.
        family: Decodes; None where only pixels come.
    """

    def __init__(self, upscaler: Upscaler, device: torch.device, family: Family | None = None) -> None:
        self._decoding: Tiler[Unfinished] | None = None
        if family is not None:
            side, scale = family.decode_side, family.latent_scale
            area = _DECODE_PIXELS[device.type] // scale**2
            tile = TileShape(side, overlap=max(2, side // 8 * 2), batch_area=area, blend=True)
            self._decoding = Tiler(family.decode, scale, tile)
        self._enlarging: dict[int, Tiler[Unfinished]] = {
            factor: Tiler(upscaler.runner(factor), factor, upscaler.tile) for factor in (2, 4)
        }
        self.device = device
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="palaver-png")
        self._compressing: list[tuple[Unfinished, tuple[int, int], Future[bytes]]] = []

    @property
    def busy(self) -> bool:
        """Whether any picture is unfinished."""
        return self._computing or bool(self._compressing)

    @property
    def _computing(self) -> bool:
        return any(tiler.busy for tiler in self._tilers)

    @property
    def _tilers(self) -> list[Tiler[Unfinished]]:
        # What is nearest to its end comes first, so that pictures leave one after the other.
        return [*self._enlarging.values(), *([] if self._decoding is None else [self._decoding])]

    def decode(self, picture: Unfinished, latents: Tensor) -> None:
        """Take latents, ``(1, channels, rows, columns)``, to be decoded and everything after that."""
        assert self._decoding is not None  # noqa: S101 - whoever has latents has a family
        self._decoding.add(picture, latents[0])

    def enlarge(self, picture: Unfinished, pixels: Tensor) -> None:
        """Take pixels, ``(3, height, width)``, to be enlarged by what is left of ``factors``, and compressed."""
        if picture.factors:
            self._enlarging[picture.factors.pop(0)].add(picture, pixels)
            return
        on_cpu = pixels.cpu()
        size = (pixels.shape[-1], pixels.shape[-2])
        self._compressing.append((picture, size, self._thread.submit(encode_png, on_cpu)))

    def drop(self, unwanted: Callable[[Drawing], bool]) -> None:
        """Forget pictures of drawings."""
        for tiler in self._tilers:
            tiler.drop(lambda picture: unwanted(picture.drawing))
        self._compressing = [item for item in self._compressing if not unwanted(item[0].drawing)]

    def step(self, *, wait: bool) -> list[Print]:
        """Compute one piece and collect what has become ready.

        Args:
            wait: Rather wait for the compressing thread than return with nothing.

        Raises:
            TileTooLargeError: A picture cannot be finished; its key is the ``Unfinished``.
        """
        tiler = next((tiler for tiler in self._tilers if tiler.busy), None)
        if tiler is not None:
            started_s = time.monotonic()
            taken, complete = tiler.step()
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            for picture in taken:
                picture.drawing.gpu_s += (time.monotonic() - started_s) / len(taken)
            for picture, pixels in complete:
                self._go_on(picture, pixels)
        elif wait and self._compressing:
            self._compressing[0][2].result()
        return self._collect()

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _go_on(self, picture: Unfinished, pixels: Tensor) -> None:
        if picture.kept is not None:
            kept, picture.kept = picture.kept, None
            pixels = torch.lerp(kept.pixels[0].to(pixels), pixels, kept.pixel_mask[0].to(pixels))
        self.enlarge(picture, pixels)

    def _collect(self) -> list[Print]:
        ready = [item for item in self._compressing if item[2].done()]  # asked once: more may be a moment later
        self._compressing = [item for item in self._compressing if item not in ready]
        return [Print(picture, future.result(), *size) for picture, size, future in ready]
