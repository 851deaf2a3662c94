"""A fast image engine whose pictures are a pure function of prompt and seed, so that tests can tell a wrong one.

It steers by the prompt, as ``{"step_s": 0.01, "kill": 2}`` or plain text:

    step_s      how long a step takes
    kill        at this step the process kills itself with SIGKILL
    fail        at this step ``step`` raises
    refuse      ends as Failed with this code, not retryable
    px          size of the pictures (default 8)
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from generation.types import EngineEvent, EngineInfo, Failed, Finished, ImageRequest, Picture, Progress, Usage

STEPS = 4


def png(red_green_blue: bytes, size_px: int) -> bytes:
    """A square PNG of one colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack("!I", len(data)) + name + data + struct.pack("!I", zlib.crc32(name + data))

    header = struct.pack("!IIBBBBB", size_px, size_px, 8, 2, 0, 0, 0)
    rows = (b"\0" + red_green_blue * size_px) * size_px
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def picture(prompt: str, seed: int, init: bytes | None = None, size_px: int = 8) -> bytes:
    """The one right picture."""
    return png(hashlib.sha256(f"{prompt}|{seed}".encode() + (init or b"")).digest()[:3], size_px)


def orders_of(prompt: str) -> dict[str, Any]:
    return json.loads(prompt) if prompt.startswith("{") else {}


@dataclass
class _Drawing:
    request: ImageRequest
    orders: dict[str, Any]
    steps: int
    submitted_at: float
    done: int = 0
    gpu_s: float = 0.0


class ColourEngine:
    """``generation.types.Engine`` without a model: every step brings every request one step further."""

    def __init__(self, step_s: float = 0.0, capacity: int = 64) -> None:
        self._step_s = step_s
        self._live: dict[str, _Drawing] = {}
        self._info = EngineInfo("colours", "colours", "cpu", "none", capacity, 0)

    @property
    def info(self) -> EngineInfo:
        return self._info

    @property
    def busy(self) -> bool:
        return bool(self._live)

    def submit(self, request: ImageRequest) -> None:
        steps = request.sampling.num_inference_steps or STEPS
        self._live[request.request_id] = _Drawing(request, orders_of(request.prompt), steps, time.monotonic())

    def cancel(self, request_id: str) -> None:
        self._live.pop(request_id, None)

    def step(self) -> list[EngineEvent]:
        started = time.monotonic()
        pause_s = max([self._step_s, *(float(each.orders.get("step_s", 0)) for each in self._live.values())])
        if pause_s:
            time.sleep(pause_s)
        share_s = (time.monotonic() - started) / max(1, len(self._live))
        events: list[EngineEvent] = []
        for drawing in list(self._live.values()):
            events += self._advance(drawing, share_s)
        return events

    def close(self) -> None:
        self._live.clear()

    def _advance(self, drawing: _Drawing, share_s: float) -> list[EngineEvent]:
        request, orders = drawing.request, drawing.orders
        if orders.get("kill") == drawing.done:
            os.kill(os.getpid(), signal.SIGKILL)
        if orders.get("fail") == drawing.done:
            raise RuntimeError("the prompt must not be seen in a log: " + request.prompt)
        if "refuse" in orders:
            del self._live[request.request_id]
            return [Failed(request.request_id, str(orders["refuse"]), "It did not work.")]
        drawing.done += 1
        drawing.gpu_s += share_s
        every = request.sampling.preview_every_steps
        preview = png(bytes([drawing.done % 256] * 3), 2) if every and drawing.done % every == 0 else None
        events: list[EngineEvent] = [Progress(request.request_id, drawing.done, drawing.steps, preview)]
        if drawing.done >= drawing.steps:
            del self._live[request.request_id]
            events += self._finished(drawing)
        return events

    def _finished(self, drawing: _Drawing) -> list[EngineEvent]:
        request = drawing.request
        first = request.sampling.seed if request.sampling.seed is not None else 1
        size_px = int(drawing.orders.get("px", 8))
        pictures: list[EngineEvent] = [
            Picture(
                request.request_id,
                index,
                picture(request.prompt, first + index, request.init_image, size_px),
                "image/png",
                size_px,
                size_px,
                first + index,
            )
            for index in reversed(range(request.sampling.n))  # the order of completion is not that of the seeds
        ]
        usage = Usage(
            image_steps=drawing.done * request.sampling.n,
            duration_s=time.monotonic() - drawing.submitted_at,
            gpu_s=drawing.gpu_s,
        )
        return [*pictures, Finished(request.request_id, "stop", usage)]


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> ColourEngine:
    """The factory: ``tests.image_engine:build``."""
    progress("loading colours", 0.5)
    return ColourEngine(float(str(options.get("step_s", 0))), int(str(options.get("capacity", 64))))
