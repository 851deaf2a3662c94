"""The slow, general road: any text-to-image pipeline of diffusers through its own loop, one picture after the other."""

from __future__ import annotations

import inspect
import logging
import secrets
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from generation.errors import GenerationError, InvalidRequestError, ModelError, OutOfMemoryError
from generation.image import noise, starting
from generation.image.drawing import Drawing
from generation.image.finishing import Finishing, Unfinished
from generation.image.paced_call import PacedCall
from generation.image.pictures import colours
from generation.image.request_loop import RequestLoop
from generation.image.upscaler import Upscaler
from generation.torch_devices import is_out_of_memory
from generation.types import EngineInfo, ImageRequest, Progress

_LOG = logging.getLogger("palaver.image.sequential")


@dataclass(eq=False, slots=True)
class _Running:
    """The picture that is being drawn."""

    drawing: Drawing
    index: int
    seed: int
    total_steps: int
    call: PacedCall[Tensor]
    step: int = 0


class SequentialEngine(RequestLoop):
    """Runs a pipeline that step-level batching does not fit; see ``generation.types.Engine``.

    Cancelling and deadlines take effect between two denoising steps; there are no previews, samplers or initial
    pictures, which each pipeline would do in its own way.

    Args:
        name: What the model is called.
        pipe: A loaded ``DiffusionPipeline`` on its device.
        upscaler: Enlarges pictures.

    Raises:
        ModelError: The pipeline does not draw from text.
    """

    def __init__(self, name: str, pipe: Any, upscaler: Upscaler) -> None:
        self._accepts = inspect.signature(pipe.__call__).parameters
        if "prompt" not in self._accepts:
            raise ModelError(f"{name} ({type(pipe).__name__}) does not draw from text. Choose another image model.")
        device: torch.device = pipe.device
        info = EngineInfo(
            model=name,
            backend=f"one at a time ({type(pipe).__name__})",
            device=str(device),
            dtype=str(pipe.dtype).removeprefix("torch."),
            capacity=1,
            context_tokens=0,
        )
        super().__init__(info, Finishing(upscaler, device))
        pipe.set_progress_bar_config(disable=True)
        self._pipe = pipe
        self._waiting: deque[Drawing] = deque()
        self._running: _Running | None = None

    @property
    def _drawing(self) -> bool:
        return bool(self._waiting) or self._running is not None

    def _take(self, drawing: Drawing) -> None:
        self._waiting.append(drawing)

    def _drop(self, drawing: Drawing) -> None:
        if drawing in self._waiting:
            self._waiting.remove(drawing)
        if self._running is not None and self._running.drawing is drawing:
            running, self._running = self._running, None
            running.call.stop()

    def _advance(self) -> float:
        if self._running is None and self._waiting:
            self._start(self._waiting.popleft())
        if self._running is None:
            return 0.0
        running, started_s = self._running, time.monotonic()
        try:
            ended = running.call.advance()
        except Exception as error:  # noqa: BLE001 - pipelines raise whatever they like over a request
            self._running = None
            self._fail(running.drawing, _mapped(error))
            return time.monotonic() - started_s
        spent_s = time.monotonic() - started_s
        running.drawing.gpu_s += spent_s
        self._end(running) if ended else self._tell(running)
        return spent_s

    def _start(self, drawing: Drawing) -> None:
        try:
            if drawing.request.task == "upscale":
                self._enlarge(drawing)
                return
            self._check(drawing.request)
        except GenerationError as error:
            self._fail(drawing, error)
            return
        seed = drawing.request.sampling.seed
        drawing.pictures_left = drawing.request.sampling.n
        self._draw(drawing, 0, secrets.randbits(31) if seed is None else seed)

    def _check(self, request: ImageRequest) -> None:
        sampling = request.sampling
        asked = {
            "a sampler by name": sampling.sampler is not None,
            "a style by name": sampling.style is not None,
            "an initial picture": request.init_image is not None or request.mask_image is not None,
            "variations": sampling.variation_seed is not None and sampling.variation_strength > 0,
            "a negative prompt": bool(request.negative_prompt) and "negative_prompt" not in self._accepts,
            "a size": "width" not in self._accepts and (sampling.width_px > 0 or sampling.aspect != 1),
            "an aspect ratio without a size": sampling.width_px == 0 and sampling.aspect != 1,
        }
        refused = [name for name, wanted in asked.items() if wanted]
        if refused:
            raise InvalidRequestError(f"This model runs through its own pipeline, which does not take {refused[0]}.")
        if not request.prompt.strip():
            raise InvalidRequestError("The prompt is empty: say what the picture is to show.")

    def _draw(self, drawing: Drawing, index: int, seed: int) -> None:
        """Begin one picture."""
        request, sampling = drawing.request, drawing.request.sampling
        wanted: dict[str, Any] = {"prompt": request.prompt, "generator": noise.new_generator(seed)}
        if request.negative_prompt:
            wanted["negative_prompt"] = request.negative_prompt
        if sampling.num_inference_steps:
            wanted["num_inference_steps"] = sampling.num_inference_steps
        if sampling.guidance_scale is not None:
            wanted["guidance_scale"] = sampling.guidance_scale
        if sampling.width_px:
            wanted |= {"width": sampling.width_px, "height": sampling.height_px}
        options = {name: value for name, value in wanted.items() if name in self._accepts}
        steps = options.get("num_inference_steps") or self._default("num_inference_steps")
        call = PacedCall(lambda pause: self._call(options, pause))
        self._running = _Running(drawing, index, seed, int(steps or 1), call)

    def _call(self, options: dict[str, Any], pause: Any) -> Tensor:
        """In the thread: the whole pipeline."""
        if "callback_on_step_end" in self._accepts:

            def after_step(_pipe: Any, _step: int, _timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
                pause()
                return tensors

            options = options | {"callback_on_step_end": after_step}
        picture: Image.Image = self._pipe(**options, output_type="pil", return_dict=False)[0][0]
        return colours(picture)[0]

    def _tell(self, running: _Running) -> None:
        drawing = running.drawing
        running.step += 1
        drawing.image_steps += 1
        pictures = drawing.request.sampling.n
        step = (running.index * running.total_steps + running.step) // pictures
        if step > drawing.reported_step:
            drawing.reported_step = step
            self._events.append(Progress(drawing.request_id, step, running.total_steps))

    def _end(self, running: _Running) -> None:
        self._running = None
        drawing, factors = running.drawing, starting.factors(running.drawing.request.sampling.upscale)
        pixels = running.call.result.to(self._finishing.device)
        self._finishing.enlarge(Unfinished(drawing, running.index, running.seed, None, factors), pixels)
        if running.index + 1 < drawing.request.sampling.n:
            self._draw(drawing, running.index + 1, running.seed + 1)

    def _default(self, name: str) -> Any:
        return self._accepts[name].default if name in self._accepts else None


def _mapped(error: Exception) -> GenerationError:
    if is_out_of_memory(error):
        return OutOfMemoryError("There is not enough memory for this picture, even alone. Ask for a smaller one.")
    _LOG.warning("the pipeline raised %s over a request", type(error).__name__)
    return InvalidRequestError("The model's pipeline refused this request: try another size or fewer options.")
