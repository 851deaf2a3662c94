"""The image engine: every denoising step serves all pictures in flight, each at its own timestep."""

from __future__ import annotations

import logging
import secrets
import time
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from generation.errors import GenerationError, OutOfMemoryError
from generation.image import starting
from generation.image.drawing import Drawing, Sample
from generation.image.family import Condition
from generation.image.finishing import Finishing, Unfinished
from generation.image.pictures import encode_png, grid
from generation.image.request_loop import RequestLoop
from generation.image.samplers import Samplers, predicted_clean
from generation.image.scheduler import Scheduler
from generation.torch_devices import is_out_of_memory
from generation.types import EngineInfo, Progress

if TYPE_CHECKING:
    from generation.image.family import Family
    from generation.image.upscaler import Upscaler

_LOG = logging.getLogger("palaver.image.engine")

#: A first preview comes no later than this, however rarely the others are wanted.
_FIRST_PREVIEW_STEP = 3


class ImageEngine(RequestLoop):
    """Runs a diffusion model for many requests at once; see ``generation.types.Engine``.

    A step is: begin what is new, one denoising pass, and as much finishing of other pictures as that pass took.
    A picture is the same whatever else is in flight, within the rounding of its dtype.

    Args:
        family: The model.
        upscaler: Enlarges pictures.
        rows: Most pictures of the model's own size in one pass.
        preview_px: Longer side of a preview.
    """

    def __init__(self, family: Family, upscaler: Upscaler, rows: int, preview_px: int = 256) -> None:
        info = EngineInfo(
            model=family.name,
            backend="step-level batching",
            device=str(family.device),
            dtype=str(family.dtype).removeprefix("torch."),
            capacity=rows,
            context_tokens=family.prompt_tokens,
        )
        super().__init__(info, Finishing(upscaler, family.device, family))
        self._family = family
        self._samplers = Samplers(family.scheduler, family.prediction)
        self._scheduler = Scheduler(rows * family.fit(family.defaults.size).pixels)
        self._preview_px = preview_px
        self._conditions: tuple[tuple[Drawing, ...], Condition] = ((), {})

    def _take(self, drawing: Drawing) -> None:
        self._scheduler.waiting.append(drawing)

    @property
    def _drawing(self) -> bool:
        return self._scheduler.busy

    def _advance(self) -> float:
        self._begin()
        return self._denoise()

    def _drop(self, drawing: Drawing) -> None:
        self._scheduler.remove(drawing)
        if drawing in self._conditions[0]:
            self._conditions = ((), {})

    def _begin(self) -> None:
        """Let waiting requests join: one a step while passes are full, else all."""
        while self._scheduler.waiting:
            drawing = self._scheduler.waiting.popleft()
            started_s = time.monotonic()
            try:
                self._start(drawing)
            except GenerationError as error:
                self._fail(drawing, error)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                self._fail(drawing, _too_large())
            drawing.gpu_s += time.monotonic() - started_s
            if self._scheduler.full:
                break

    def _start(self, drawing: Drawing) -> None:
        """Everything before a request's first pass.

        Raises:
            GenerationError: The request cannot be served.
        """
        if drawing.request.task == "upscale":
            self._enlarge(drawing)
            return
        starting.prepare(drawing, self._family, self._samplers, fresh_seed=secrets.randbits(31))
        self._scheduler.join(drawing)

    def _denoise(self) -> float:
        """One pass, and what follows from it; returns the seconds it took."""
        picked = self._scheduler.pick()
        if not picked:
            return 0.0
        started_s = time.monotonic()
        inputs = [sample.model_input() for sample in picked]
        outputs = self._predict(picked, inputs)
        for sample, model_input, output in zip(picked, inputs, outputs, strict=True):
            if output is not None:
                sample.advance(model_input, output)
        if self._family.device.type == "cuda":
            torch.cuda.synchronize(self._family.device)
        spent_s = time.monotonic() - started_s
        for sample in picked:
            sample.drawing.gpu_s += spent_s / len(picked)
        self._scheduler.commit()
        too_large = {sample.drawing for sample, output in zip(picked, outputs, strict=True) if output is None}
        for drawing in too_large:
            self._fail(drawing, _too_large())
        self._move_on([sample for sample in picked if sample.drawing not in too_large])
        return spent_s

    def _move_on(self, samples: list[Sample]) -> None:
        """Report progress, and send what is denoised on its way to being finished."""
        for sample in samples:
            if sample.done:
                self._finishing.decode(_unfinished(sample), sample.latents)
        for drawing in dict.fromkeys(sample.drawing for sample in samples):
            self._tell(drawing)
            self._scheduler.retire(drawing)

    def _predict(self, samples: list[Sample], inputs: list[Tensor]) -> list[Tensor | None]:
        """The denoiser's outputs with guidance; None for a picture that does not fit into memory even alone."""
        try:
            return list(self._pass(samples, inputs))
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
        self._conditions = ((), {})
        if self._family.device.type == "cuda":
            torch.cuda.empty_cache()
        if len(samples) == 1:
            return [self._row_by_row(samples[0], inputs[0])]
        half = len(samples) // 2
        self._scheduler.shed(len(samples), samples[0].drawing.size.pixels)
        _LOG.warning("Out of memory: continuing with %d pictures at once", half)
        return self._predict(samples[:half], inputs[:half]) + self._predict(samples[half:], inputs[half:])

    def _pass(self, samples: list[Sample], inputs: list[Tensor]) -> list[Tensor]:
        """One forward pass, rows of each picture side by side."""
        counts = [len(sample.drawing.rows) for sample in samples]
        latents = torch.cat(
            [model_input.expand(count, -1, -1, -1) for model_input, count in zip(inputs, counts, strict=True)]
        )
        steps = torch.tensor(
            [float(sample.timestep) for sample, count in zip(samples, counts, strict=True) for _ in range(count)]
        )
        output = self._family.denoise(latents, steps.to(latents.device), self._gathered(samples))
        parts = torch.split(output, counts)
        return [_guided(part, sample.drawing.guidance_scale) for part, sample in zip(parts, samples, strict=True)]

    def _row_by_row(self, sample: Sample, model_input: Tensor) -> Tensor | None:
        """The least that can be computed at once."""
        step = torch.tensor([float(sample.timestep)], device=model_input.device)
        rows = sample.drawing.rows
        try:
            parts = [self._family.denoise(model_input, step, _stacked([row])) for row in rows]
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        return _guided(torch.cat(parts), sample.drawing.guidance_scale)

    def _gathered(self, samples: list[Sample]) -> Condition:
        """Conditions of all rows; the same as at the last pass more often than not."""
        drawings = tuple(sample.drawing for sample in samples)
        if self._conditions[0] != drawings:
            self._conditions = (drawings, _stacked([row for drawing in drawings for row in drawing.rows]))
        return self._conditions[1]

    def _tell(self, drawing: Drawing) -> None:
        """Report progress, and a preview when one is due."""
        step = drawing.step
        if step <= drawing.reported_step:
            return
        drawing.reported_step = step
        preview = self._preview(drawing) if _preview_due(drawing, step) else None
        if preview is not None and drawing.first_s is None:
            drawing.first_s = time.monotonic()
        self._events.append(Progress(drawing.request_id, step, drawing.total_steps, preview))

    def _preview(self, drawing: Drawing) -> bytes | None:
        started_s = time.monotonic()
        latents = torch.cat([self._expected(sample) for sample in drawing.samples])
        try:
            sketches = self._family.sketch(latents).cpu()
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            return None
        data = encode_png(grid(list(sketches), self._preview_px))
        drawing.gpu_s += time.monotonic() - started_s
        return data

    def _expected(self, sample: Sample) -> Tensor:
        """What the picture's latents are going to be, as far as can be seen."""
        if sample.seen is None:
            return sample.latents
        model_input, timestep, output = sample.seen
        clean = predicted_clean(sample.scheduler, self._family.prediction, model_input, timestep, output)
        kept = sample.kept
        return clean if kept is None else torch.lerp(kept.latents, clean, kept.mask)


def _guided(output: Tensor, scale: float) -> Tensor:
    """Away from the negative row, towards the other; one row stays as it is.

    Source: Ho and Salimans, "Classifier-Free Diffusion Guidance", 2022.
    """
    if len(output) == 1:
        return output
    negative, positive = output[:1], output[1:]
    return negative + scale * (positive - negative)


def _stacked(rows: list[Condition]) -> Condition:
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def _unfinished(sample: Sample) -> Unfinished:
    factors = starting.factors(sample.drawing.enlargement)
    return Unfinished(sample.drawing, sample.index, sample.seed, sample.kept, factors)


def _preview_due(drawing: Drawing, step: int) -> bool:
    every = drawing.request.sampling.preview_every_steps
    if not every or step >= drawing.total_steps:
        return False
    return step % every == 0 or step == min(every, _FIRST_PREVIEW_STEP)


def _too_large() -> OutOfMemoryError:
    return OutOfMemoryError("There is not enough memory for this picture, even alone. Ask for a smaller one.")
