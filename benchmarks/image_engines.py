"""The image engine against its own denoiser and against diffusers' pipelines, interleaved in one run.

A Stable Diffusion of 20 million parameters at 32x32 latents with guidance (two rows a picture), randomly initialised,
for a denoiser does not compute faster for being trained. Ratios carry over to other machines, absolute figures do not.

    python -m benchmarks.image_engines [--quick] [--rounds N] [--clock wall|cpu] [--json FILE]

Engine and bare denoiser take turns pass by pass, engine and pipelines batch by batch; the median round counts. With
``--clock cpu`` processor seconds are compared instead of the clock's: on a machine that is busy with other things they
are disturbed less. A machine of two cores needs about six minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generation.devices import engine_environment

if TYPE_CHECKING:
    from generation.image.engine import ImageEngine

EQUAL_STEPS = 8
#: In the mixed case each number of steps comes twice, so that static batches of equal steps are possible at all.
MIXED_STEPS = (4, 6, 16)
SIDE_PX = 256
TOKENS = 16
WIDTH = 256


@dataclass(frozen=True)
class Line:
    """One comparison: how many times as fast, or as long, ours is; and what it should be."""

    name: str
    ratio: float
    goal: str
    reached: bool


def main() -> None:
    options = _options()
    os.environ.update(engine_environment())  # before torch is imported: OpenMP reads it then
    import torch

    from generation.torch_devices import choose_device, set_threads

    device = choose_device("auto")
    print(f"{device}, {set_threads(0)} threads, torch {torch.__version__}, {options.clock} time")
    clock = _clock(options.clock, device)
    pipe = _pipeline(device)
    lines = [_against_denoiser(pipe, clock, options)]
    _tell(lines[-1])
    crowd = 4 if device.type == "cuda" else 1
    for name, steps in (("equal", [EQUAL_STEPS] * 4 * crowd), ("mixed", [*MIXED_STEPS] * 2 * crowd)):
        for line in _against_pipelines(pipe, name, steps, clock, options):
            lines.append(line)
            _tell(line)
    lines.append(_late_arrival(pipe, clock, options))
    _tell(lines[-1])
    lines += _embedded(clock, options)
    if options.json:
        options.json.write_text(json.dumps([asdict(line) for line in lines], indent=2) + "\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round, and half as many passes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=["wall", "cpu"], default="wall")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    options.rounds = 1 if options.quick else options.rounds
    return options


def _clock(kind: str, device: Any) -> Callable[[], float]:
    def now_s() -> float:
        if device.type == "cuda":
            import torch

            torch.cuda.synchronize(device)
        return time.process_time() if kind == "cpu" else time.perf_counter()

    return now_s


def _pipeline(device: Any) -> Any:
    """As much of a pipeline as is needed: prompts come as embeddings."""
    import diffusers
    import torch

    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(96, 192, 288),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=8,
    )
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(32,) * 4,
        decoder_block_out_channels=(32,) * 4,
        num_encoder_blocks=(1, 1, 1, 1),
        num_decoder_blocks=(1, 1, 1, 1),
    )
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = diffusers.StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=None,
        tokenizer=None,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        image_encoder=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.to(device)
    return pipe


def _embedding(seed: int) -> Any:
    import torch

    return torch.randn(1, TOKENS, WIDTH, generator=torch.Generator().manual_seed(seed))


def _engine(pipe: Any, rows: int) -> ImageEngine:
    import torch

    from generation.image.engine import ImageEngine
    from generation.image.families.stable_diffusion import StableDiffusionFamily
    from generation.image.family import Encoded, Prompt
    from generation.image.upscaler import Upscaler

    class Given(StableDiffusionFamily):
        """Prompts are numbers, and their embeddings are made of those."""

        prompt_tokens = TOKENS

        def encode_prompt(self, prompt: Prompt) -> Encoded:
            row, other = ({"text": _embedding(seed)[0].to(self.device)} for seed in (int(prompt.text), 0))
            return Encoded(row, other, TOKENS)

    return ImageEngine(Given("benchmark", pipe), Upscaler(None, torch.device(pipe.device)), rows)


def _rows(pipe: Any) -> int:
    """Pictures of a pass, as the engine would choose them."""
    return 8 if pipe.device.type == "cuda" else 2


def _request(name: str, steps: int, seed: int = 1) -> Any:
    from generation.types import ImageRequest, ImageSampling

    rules = ImageSampling(
        num_inference_steps=steps,
        guidance_scale=5.0,
        seed=seed,
        width_px=SIDE_PX,
        height_px=SIDE_PX,
        preview_every_steps=0,
    )
    return ImageRequest(name, str(seed), sampling=rules)


def _against_denoiser(pipe: Any, clock: Callable[[], float], options: argparse.Namespace) -> Line:
    """The same rows through the denoiser, with and without everything that the engine does around it."""
    import torch

    rows, passes = _rows(pipe), 6 if options.quick else 16
    engine = _engine(pipe, rows)
    for number in range(rows):
        engine.submit(_request(str(number), passes + 3, seed=number + 1))
    latents = torch.randn(2 * rows, 4, SIDE_PX // 8, SIDE_PX // 8, device=pipe.device)
    text = torch.cat([_embedding(number) for number in range(2 * rows)]).to(pipe.device)
    times = torch.linspace(0, 999, 2 * rows, device=pipe.device)

    @torch.inference_mode()
    def bare() -> None:
        pipe.unet(latents, times, encoder_hidden_states=text, return_dict=False)

    engine.step()
    bare()
    ours, theirs = [], []
    for number in range(passes):
        for which, run in [(ours, engine.step), (theirs, bare)][:: 1 if number % 2 else -1]:
            started_s = clock()
            run()
            which.append(clock() - started_s)
    engine.close()
    ratio = statistics.median(theirs) / statistics.median(ours)
    return Line(f"bare denoiser, {rows} pictures a pass", ratio, ">= 0.97", ratio >= 0.97)


def _against_pipelines(
    pipe: Any, name: str, steps: list[int], clock: Callable[[], float], options: argparse.Namespace
) -> list[Line]:
    """Pictures from prompts as PNG files: one at a time, in static batches of equal step count, and together."""
    engine = _engine(_pipeline(pipe.device), _rows(pipe))
    ways: dict[str, Callable[[], None]] = {
        "this engine": lambda: _together(engine, steps),
        "one at a time": lambda: _in_batches(pipe, steps, 1),
        "static batches": lambda: _in_batches(pipe, steps, 4),
    }
    # The first pass of each shape of batch prepares its kernels.
    _together(engine, [1] * 4)
    _in_batches(pipe, [1] * 4, 1)
    _in_batches(pipe, [1] * 4, 4)
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way in list(ways)[:: 1 if number % 2 == 0 else -1]:
            started_s = clock()
            ways[way]()
            seconds[way].append(clock() - started_s)
    engine.close()
    medians = {way: statistics.median(each) for way, each in seconds.items()}
    goal = 1.5 if pipe.device.type == "cuda" and name == "mixed" else 1.0
    lines = []
    for way in ("one at a time", "static batches"):
        ratio = medians[way] / medians["this engine"]
        lines.append(Line(f"diffusers, {way}, {name} steps", ratio, f">= {goal}", ratio >= goal))
    return lines


def _together(engine: ImageEngine, steps: list[int]) -> None:
    for number, count in enumerate(steps):
        engine.submit(_request(str(number), count, seed=number + 1))
    while engine.busy:
        engine.step()


def _in_batches(pipe: Any, steps: list[int], most: int) -> None:
    """Batches of equal step count, for a pipeline's call has but one."""
    for count in sorted(set(steps)):
        seeds = [number + 1 for number, each in enumerate(steps) if each == count]
        for start in range(0, len(seeds), most):
            _draw(pipe, seeds[start : start + most], count)


def _draw(pipe: Any, seeds: list[int], steps: int) -> None:
    """Pictures of a pipeline, as files like the engine's."""
    import torch

    from generation.image.pictures import colours, encode_png

    drawn = pipe(
        prompt_embeds=torch.cat([_embedding(seed) for seed in seeds]).to(pipe.device),
        negative_prompt_embeds=torch.cat([_embedding(0) for _ in seeds]).to(pipe.device),
        num_inference_steps=steps,
        guidance_scale=5.0,
        height=SIDE_PX,
        width=SIDE_PX,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
    )
    for picture in drawn.images:
        encode_png(colours(picture)[0])


def _late_arrival(pipe: Any, clock: Callable[[], float], options: argparse.Namespace) -> Line:
    """A request of 4 steps that arrives while one of 40 runs, over its time alone."""
    from generation.types import Finished

    engine = _engine(pipe, _rows(pipe))

    def until_done(name: str) -> float:
        engine.submit(_request(name, 4))
        started_s = clock()
        while not any(isinstance(event, Finished) and event.request_id == name for event in engine.step()):
            pass
        return clock() - started_s

    alone, beside = [], []
    until_done("first")
    for _ in range(options.rounds):
        alone.append(until_done("short"))
        engine.submit(_request("long", 40))
        for _ in range(3):
            engine.step()
        beside.append(until_done("short"))
        engine.cancel("long")
    engine.close()
    ratio = statistics.median(beside) / statistics.median(alone)
    return Line("4 steps beside 40, over its time alone", ratio, "<= 3", ratio <= 3)


def _embedded(clock: Callable[[], float], options: argparse.Namespace) -> list[Line]:
    """Seconds for a picture of the embedded model at 16 steps, enlarged to 512 px."""
    from generation.errors import GenerationError
    from generation.image.factory import build
    from generation.types import ImageRequest, ImageSampling

    try:
        engine = build({}, lambda *_: None)
    except GenerationError as error:
        print(f"embedded model: skipped ({error})")
        return []
    seconds = []
    for seed in range(max(2, options.rounds)):
        rules = ImageSampling(num_inference_steps=16, width_px=512, height_px=512, seed=seed)
        engine.submit(ImageRequest("a", "a red fox in the snow", sampling=rules))
        started_s = clock()
        while engine.busy:
            engine.step()
        seconds.append(clock() - started_s)
    engine.close()
    taken_s = statistics.median(seconds)
    line = Line("embedded model: seconds for 16 steps and 512 px", taken_s, "< 5", taken_s < 5)
    _tell(line)
    return [line]


def _tell(line: Line) -> None:
    print(f"{line.name:<52}{line.ratio:>8.3f}   {line.goal:<8}{'reached' if line.reached else 'missed'}", flush=True)


if __name__ == "__main__":
    main()
