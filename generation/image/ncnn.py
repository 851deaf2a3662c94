"""Weights in ncnn's format: a text file of layers and a binary file of their numbers, read without running anything."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from generation.errors import ModelCorruptError

_MAGIC = "7767517"
_FLOAT16_TAG = 0x01306B47
_FLOAT32_TAG = 0


def read_weights(param: str, data: bytes) -> dict[str, Tensor]:
    """Read the convolutions and PReLUs of a network.

    Args:
        param: The text of the ``.param`` file.
        data: The ``.bin`` file.

    Returns:
        By layer number: ``0.weight`` and ``0.bias`` of the first layer with weights, ``1.weight`` of the second if
        that is a PReLU, and so on; float32, convolutions as ``(out, in, height, width)``.

    Raises:
        ModelCorruptError: It is another kind of file, or the two do not belong together.

    Source: https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure
    """
    lines = param.splitlines()
    if not lines or lines[0].strip() != _MAGIC:
        raise ModelCorruptError("This is not a network in ncnn's format.")
    reader, weights, number, channels = _Reader(data), {}, 0, 3
    for line in lines[2:]:
        kind, _, inputs, outputs, *rest = line.split()
        options = dict(pair.split("=") for pair in rest[int(inputs) + int(outputs) :])
        if kind == "Convolution":
            out, side, count = int(options["0"]), int(options["1"]), int(options["6"])
            weights[f"{number}.weight"] = reader.tagged(count).reshape(out, channels, side, side)
            weights[f"{number}.bias"] = reader.plain(out)
            channels = out
        elif kind == "PReLU":
            weights[f"{number}.weight"] = reader.plain(int(options["0"]))
        else:
            continue
        number += 1
    if not reader.at_end:
        raise ModelCorruptError("The network's numbers do not belong to its layers.")
    return weights


class _Reader:
    """Numbers one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data, self._place = data, 0

    @property
    def at_end(self) -> bool:
        return self._place == len(self._data)

    def tagged(self, count: int) -> Tensor:
        """Numbers after a tag that says how they are written; halves are padded to four bytes."""
        tag = int(self._take(1, np.dtype("<u4"))[0])
        if tag == _FLOAT32_TAG:
            return self.plain(count)
        if tag != _FLOAT16_TAG:
            raise ModelCorruptError("The network's numbers are written in a way that is not read here.")
        values = self._take(count + count % 2, np.dtype("<f2"))[:count]
        return torch.from_numpy(values.astype(np.float32))

    def plain(self, count: int) -> Tensor:
        """Numbers in 32 bits."""
        return torch.from_numpy(self._take(count, np.dtype("<f4")).astype(np.float32))

    def _take(self, count: int, dtype: np.dtype[np.generic]) -> np.ndarray[tuple[int], np.dtype[np.generic]]:
        end = self._place + count * dtype.itemsize
        if end > len(self._data):
            raise ModelCorruptError("The network's numbers are cut short.")
        values = np.frombuffer(self._data, dtype, count, self._place)
        self._place = end
        return values
