"""Maps over pictures in pieces: tiles of several pictures share a pass, and no pass takes long."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import torch
from torch import Tensor

from generation.errors import OutOfMemoryError
from generation.torch_devices import is_out_of_memory

Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True, slots=True)
class TileShape:
    """How pictures are cut.

    Args:
        side: Longest side of a tile, in units of the source; a picture of no more than its square is one tile.
        overlap: What neighbours share, in the same units; even.
        batch_area: Most units of one pass; one tile is always possible.
        blend: Whether neighbours fade into each other; else each is cut in the middle of what they share.
    """

    side: int
    overlap: int
    batch_area: int
    blend: bool


@dataclass(eq=False, slots=True)
class _Work(Generic[Key]):
    """One picture being mapped."""

    key: Key
    source: Tensor
    tiles: deque[tuple[int, int]]
    shape: tuple[int, int]
    sums: Tensor | None = None
    weights: Tensor | None = None
    whole: Tensor | None = None
    places: set[tuple[int, int]] = field(default_factory=set)


class Tiler(Generic[Key]):
    """Runs a map over pictures, a pass a call.

    Args:
        run: Maps ``(batch, channels, height, width)`` to ``(batch, channels, height * scale, width * scale)``.
        scale: Units of the result for each of the source.
        tile: How pictures are cut.
    """

    def __init__(self, run: Callable[[Tensor], Tensor], scale: int, tile: TileShape) -> None:
        self._run, self._scale, self._tile = run, scale, tile
        self._side, self._area = tile.side, tile.batch_area
        self._queue: list[_Work[Key]] = []

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._queue)

    def add(self, key: Key, source: Tensor) -> None:
        """Take a picture, ``(channels, height, width)``; its result comes from a later ``step``."""
        self._queue.append(self._cut(key, source))

    def drop(self, unwanted: Callable[[Key], bool]) -> None:
        """Forget pictures."""
        self._queue = [work for work in self._queue if not unwanted(work.key)]

    def step(self) -> tuple[list[Key], list[tuple[Key, Tensor]]]:
        """Run one pass.

        Returns:
            The keys that had a tile in it, once for each tile; and what became complete, each
            ``(channels, height * scale, width * scale)``.

        Raises:
            TileTooLargeError: Even the smallest tile of the picture at the head does not fit into memory.
        """
        batch = self._batch()
        if not batch:
            return [], []
        try:
            mapped = self._run(torch.stack([_part(work, place) for work, place in batch]))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            self._shrink(batch)
            return [], []
        for (work, place), result in zip(batch, mapped, strict=True):
            self._paste(work, place, result)
        complete = [work for work in self._queue if not work.tiles]
        self._queue = [work for work in self._queue if work.tiles]
        if not self._queue:
            self._side, self._area = self._tile.side, self._tile.batch_area
        return [work.key for work, _ in batch], [(work.key, _result(work)) for work in complete]

    def _batch(self) -> list[tuple[_Work[Key], tuple[int, int]]]:
        """Take tiles of one shape from the head of the queue."""
        if not self._queue:
            return []
        shape, channels = self._queue[0].shape, self._queue[0].source.shape[0]
        most = max(1, self._area // (shape[0] * shape[1]))
        batch: list[tuple[_Work[Key], tuple[int, int]]] = []
        for work in self._queue:
            if work.shape == shape and work.source.shape[0] == channels:
                batch += [(work, place) for place in list(work.tiles)[: most - len(batch)]]
        return batch

    def _cut(self, key: Key, source: Tensor) -> _Work[Key]:
        height, width = source.shape[-2:]
        if height * width <= self._side**2:
            return _Work(key, source, deque([(0, 0)]), (height, width))
        shape = (_even_side(height, self._side, self._overlap), _even_side(width, self._side, self._overlap))
        rows = _starts(height, shape[0], self._overlap)
        columns = _starts(width, shape[1], self._overlap)
        return _Work(key, source, deque((row, column) for row in rows for column in columns), shape)

    @property
    def _overlap(self) -> int:
        return min(self._tile.overlap, self._side // 4 * 2)

    def _shrink(self, batch: list[tuple[_Work[Key], tuple[int, int]]]) -> None:
        """Less at once: fewer tiles, then smaller ones."""
        head = self._queue[0]
        if head.source.device.type == "cuda":
            torch.cuda.empty_cache()
        tile_area = head.shape[0] * head.shape[1]
        if len(batch) > 1:
            self._area = tile_area * (len(batch) // 2)
        elif max(head.shape) > max(8, self._tile.side // 8):
            self._side = max(head.shape) // 2
            self._queue = [self._cut(work.key, work.source) for work in self._queue]
        else:
            self._queue.pop(0)
            raise TileTooLargeError(head.key)

    def _paste(self, work: _Work[Key], place: tuple[int, int], result: Tensor) -> None:
        work.tiles.remove(place)
        height, width = work.source.shape[-2:]
        if work.shape == (height, width):
            work.whole = result
            return
        if work.sums is None or work.weights is None:
            work.sums = result.new_zeros(result.shape[0], height * self._scale, width * self._scale)
            work.weights = result.new_zeros(1, height * self._scale, width * self._scale)
        weight = self._weight(work, place).to(result)
        top, left = (start * self._scale for start in place)
        bottom, right = top + result.shape[-2], left + result.shape[-1]
        work.sums[:, top:bottom, left:right] += result * weight
        work.weights[:, top:bottom, left:right] += weight

    def _weight(self, work: _Work[Key], place: tuple[int, int]) -> Tensor:
        sides = [
            _ramp(
                length * self._scale,
                self._overlap * self._scale,
                blend=self._tile.blend,
                first=start == 0,
                last=start + length == whole,
            )
            for start, length, whole in zip(place, work.shape, work.source.shape[-2:], strict=True)
        ]
        return sides[0][:, None] * sides[1]


class TileTooLargeError(OutOfMemoryError):
    """Not even one small tile fits.

    Args:
        key: Of the picture, which is forgotten.
    """

    def __init__(self, key: Hashable) -> None:
        super().__init__("There is not enough memory to finish this picture. Ask for a smaller one.")
        self.key = key


def _even_side(length: int, most: int, overlap: int) -> int:
    """Side of as few tiles as cover a length, all of one size, so that little is computed twice."""
    if length <= most:
        return length
    count = math.ceil((length - overlap) / (most - overlap))
    return math.ceil((length + (count - 1) * overlap) / count)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Where tiles begin so that they cover a length and neighbours share at least ``overlap``."""
    if length <= side:
        return [0]
    starts = list(range(0, length - overlap, side - overlap))
    return sorted({min(start, length - side) for start in starts})


def _ramp(length: int, overlap: int, *, blend: bool, first: bool, last: bool) -> Tensor:
    """Weights along one side of a tile: full in the middle, nothing where a neighbour knows better."""
    weights = torch.ones(length)
    half = overlap // 2
    rise = torch.linspace(0, 1, overlap + 2)[1:-1] if blend else torch.cat([torch.zeros(half), torch.ones(half)])
    if not first:
        weights[: len(rise)] *= rise
    if not last:
        weights[length - len(rise) :] *= rise.flip(0)
    return weights


def _part(work: _Work[Key], place: tuple[int, int]) -> Tensor:
    top, left = place
    height, width = work.shape
    return work.source[:, top : top + height, left : left + width]


def _result(work: _Work[Key]) -> Tensor:
    if work.whole is not None:
        return work.whole
    assert work.sums is not None and work.weights is not None  # noqa: S101, PT018 - set by the first tile
    return work.sums / work.weights
