"""Tiny randomly initialised image models, and what tests do with an image engine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from PIL import Image

from generation.image.autoencoder import PatchAutoencoder
from generation.image.denoiser import TokenDenoiser
from generation.image.engine import ImageEngine
from generation.image.families.embedded import EmbeddedFamily
from generation.image.upscaler import CompactNetwork, Upscaler
from generation.learning.sources import hashed_words
from generation.types import EngineEvent, Failed, Finished, ImageRequest, ImageSampling, Picture, Progress

STYLES = ("flat", "soft")
CPU = torch.device("cpu")


def tiny_parts(seed: int = 0) -> tuple[PatchAutoencoder, TokenDenoiser, Any]:
    """Parts of an embedded model with weights large enough that pictures differ."""
    torch.manual_seed(seed)
    autoencoder = PatchAutoencoder(
        picture_px=32,
        latent_channels=4,
        encoder_width=16,
        encoder_layers=1,
        decoder_width=16,
        decoder_layers=1,
        heads=2,
    )
    denoiser = TokenDenoiser(latent_px=4, latent_channels=4, width=32, layers=2, heads=2, styles=len(STYLES))
    with torch.no_grad():
        for parameter in denoiser.to_velocity.parameters():
            parameter.normal_(std=0.2)
    return autoencoder.eval(), denoiser.eval(), FlowMatchEulerDiscreteScheduler()


def save_embedded(directory: Path, seed: int = 0) -> Path:
    """Write a tiny model in the layout that training exports."""
    autoencoder, denoiser, scheduler = tiny_parts(seed)
    autoencoder.save_pretrained(directory / "vae")
    denoiser.save_pretrained(directory / "transformer")
    scheduler.save_pretrained(directory / "scheduler")
    (directory / "model_index.json").write_text(json.dumps({"_class_name": "PalaverIconPipeline"}))
    (directory / "training.json").write_text(json.dumps({"styles": STYLES}))
    return directory


def tiny_family(dtype: torch.dtype = torch.float32) -> EmbeddedFamily:
    autoencoder, denoiser, scheduler = tiny_parts()
    for part in (autoencoder, denoiser):
        torch.nn.Module.to(part, dtype)  # diffusers' own warns of layers to keep in float32, and there are none
    return EmbeddedFamily("tiny", autoencoder, denoiser, scheduler, STYLES, lambda texts: hashed_words(list(texts)))


def tiny_upscaler() -> Upscaler:
    torch.manual_seed(1)
    return Upscaler(CompactNetwork(width=4, layers=1), CPU)


def new_engine(rows: int = 4, dtype: torch.dtype = torch.float32, **options: Any) -> ImageEngine:
    return ImageEngine(tiny_family(dtype), tiny_upscaler(), rows, **options)


def request(name: str, prompt: str = "a red ball", **options: Any) -> ImageRequest:
    """A request; options of the request and of its sampling mixed."""
    own = {"negative_prompt", "task", "init_image", "mask_image", "deadline_s"}
    mine = {key: options.pop(key) for key in own & set(options)}
    options.setdefault("num_inference_steps", 4)
    options.setdefault("seed", 7)
    options.setdefault("width_px", 32)
    options.setdefault("height_px", options["width_px"])
    if "aspect_ratio" in options:
        options |= {"width_px": 0, "height_px": 0}
    return ImageRequest(name, prompt, sampling=ImageSampling(**options), **mine)


@dataclass
class Drawn:
    """What an engine reported."""

    events: list[EngineEvent] = field(default_factory=list)
    pictures: dict[tuple[str, int], Picture] = field(default_factory=dict)
    progress: dict[str, list[Progress]] = field(default_factory=dict)
    ends: dict[str, Finished | Failed] = field(default_factory=dict)
    steps: int = 0

    def take(self, events: list[EngineEvent]) -> None:
        for event in events:
            self.events.append(event)
            match event:
                case Picture():
                    assert event.request_id not in self.ends
                    self.pictures[event.request_id, event.index] = event
                case Progress():
                    self.progress.setdefault(event.request_id, []).append(event)
                case Finished() | Failed():
                    assert event.request_id not in self.ends
                    self.ends[event.request_id] = event

    def failure(self, name: str) -> Failed:
        end = self.ends[name]
        assert isinstance(end, Failed)
        return end

    def pixels(self, name: str, index: int = 0) -> np.ndarray[Any, np.dtype[np.int16]]:
        return open_rgb(self.pictures[name, index].data)


def drain(engine: Any, act: Callable[[int], None] | None = None, limit: int = 5000) -> Drawn:
    """Step until nothing is in flight."""
    drawn = Drawn()
    while drawn.steps < limit:
        if act is not None:
            act(drawn.steps)
        if not engine.busy:
            return drawn
        drawn.take(engine.step())
        drawn.steps += 1
    raise AssertionError("The engine does not come to an end.")


def draw(engine: Any, *requests: ImageRequest) -> Drawn:
    """Submit and drain."""
    for each in requests:
        engine.submit(each)
    return drain(engine)


def open_rgb(data: bytes) -> np.ndarray[Any, np.dtype[np.int16]]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.int16)


def encoded(width: int = 32, height: int = 32, file_format: str = "PNG", seed: int = 0, **options: Any) -> bytes:
    """A picture of smooth colours."""
    corners = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(corners).resize((width, height), Image.Resampling.BICUBIC).save(file, file_format, **options)
    return file.getvalue()


def half_mask(width: int = 32, height: int = 32) -> bytes:
    """White on the right half."""
    picture = Image.new("L", (width, height), 0)
    picture.paste(255, (width // 2, 0, width, height))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()
