"""Every family: many requests together give what diffusers' own pipeline gives one at a time."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from generation.image.engine import ImageEngine
from generation.image.pipelines import adapted
from generation.types import ImageRequest, ImageSampling
from tests import diffusers_pipelines
from tests.image_models import draw, encoded, half_mask, open_rgb, tiny_upscaler

#: In float32 a picture differs by rounding alone: at most one level of 256.
TOLERANCE = 1
SIZE = {"width_px": 32, "height_px": 32}


@pytest.fixture(scope="module", params=diffusers_pipelines.FAMILIES)
def pipe(request: pytest.FixtureRequest) -> Any:
    return diffusers_pipelines.make(request.param)


def engine_on(pipe: Any, rows: int = 6) -> ImageEngine:
    family = adapted("tiny", pipe)
    assert family is not None
    return ImageEngine(family, tiny_upscaler(), rows)


def reference(pipe: Any, prompt: str, **options: Any) -> Any:
    """What the pipeline draws by itself."""
    seed = options.pop("seed")
    if type(pipe).__name__.startswith("PixArt"):
        options |= {"use_resolution_binning": False, "clean_caption": False}
    generator = torch.Generator("cpu").manual_seed(seed)
    picture = pipe(prompt, generator=generator, output_type="pil", **options).images[0]
    return np.asarray(picture).astype(np.int16)


def test_requests_of_all_kinds_together_equal_the_pipeline_one_at_a_time(pipe: Any) -> None:
    wanted = [
        ("a red fox", {"num_inference_steps": 3, "guidance_scale": 4.0, "seed": 1}),
        ("two boats", {"num_inference_steps": 7, "guidance_scale": 7.5, "seed": 2}),
        ("snow", {"num_inference_steps": 5, "guidance_scale": 1.0, "seed": 3}),
        ("a wide view", {"num_inference_steps": 4, "guidance_scale": 3.0, "seed": 4, "width": 40, "height": 24}),
    ]
    engine = engine_on(pipe)
    requests = []
    for number, (prompt, options) in enumerate(wanted):
        width, height = options.get("width", 32), options.get("height", 32)
        sampling = {name: value for name, value in options.items() if name not in {"width", "height"}}
        sampling |= {"width_px": width, "height_px": height}
        requests.append(ImageRequest(str(number), prompt, sampling=ImageSampling(**sampling)))
    drawn = draw(engine, *requests)
    for number, (prompt, options) in enumerate(wanted):
        expected = reference(pipe, prompt, **{"height": 32, "width": 32, **options})
        assert drawn.pixels(str(number)).shape == expected.shape
        assert np.abs(drawn.pixels(str(number)) - expected).max() <= TOLERANCE, prompt
        assert expected.std() > 1


def test_negative_prompts_count(pipe: Any) -> None:
    if "guidance" in type(pipe).__name__ or (
        type(pipe).__name__ == "FluxPipeline" and pipe.transformer.config.guidance_embeds
    ):
        pytest.skip("this model takes guidance as an input and no negative prompt")
    sampling = ImageSampling(num_inference_steps=3, guidance_scale=6.0, seed=1, **SIZE)
    drawn = draw(
        engine_on(pipe),
        ImageRequest("plain", "a fox", sampling=sampling),
        ImageRequest("negative", "a fox", "dog, cat", sampling=sampling),
    )
    assert np.abs(drawn.pixels("plain") - drawn.pixels("negative")).max() > 0
    if type(pipe).__name__ == "FluxPipeline":
        return
    options = {"num_inference_steps": 3, "guidance_scale": 6.0, "seed": 1, "height": 32, "width": 32}
    expected = reference(pipe, "a fox", negative_prompt="dog, cat", **options)
    assert np.abs(drawn.pixels("negative") - expected).max() <= TOLERANCE


def test_previews_are_small_pictures_in_colour(pipe: Any) -> None:
    sampling = ImageSampling(num_inference_steps=6, seed=1, n=2, **SIZE)
    drawn = draw(engine_on(pipe), ImageRequest("a", "a fox", sampling=sampling))
    previews = [event.preview for event in drawn.progress["a"] if event.preview]
    assert len(previews) == 1
    assert open_rgb(previews[0]).shape == (32, 64, 3)


NOISE_SAMPLERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler a": "EulerAncestralDiscreteScheduler",
    "dpm++ 2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
    "lcm": "LCMScheduler",
}


def test_every_sampler_in_one_batch_equals_its_scheduler_in_the_pipeline() -> None:
    for prediction in ("stable-diffusion", "stable-diffusion-v"):
        pipe = diffusers_pipelines.make(prediction)
        own = pipe.scheduler
        sampling = {"guidance_scale": 5.0, "num_inference_steps": 8, "seed": 11}
        requests = [
            ImageRequest(name, "a fox", sampling=ImageSampling(sampler=name, **sampling, **SIZE))
            for name in NOISE_SAMPLERS
        ]
        drawn = draw(engine_on(pipe, rows=4), *requests)
        for name, kind in NOISE_SAMPLERS.items():
            pipe.scheduler = getattr(diffusers, kind).from_config(own.config)
            expected = reference(pipe, "a fox", **sampling, height=32, width=32)
            assert np.abs(drawn.pixels(name) - expected).max() <= TOLERANCE, (prediction, name)


@pytest.mark.parametrize("sampler", ["euler", "dpm++ 2m", "unipc"])
def test_flow_samplers_arrive_at_the_same_picture(sampler: str) -> None:
    pipe = diffusers_pipelines.make("stable-diffusion-3")
    engine = engine_on(pipe)
    options: dict[str, Any] = {"seed": 3, "guidance_scale": 1.0, **SIZE}
    drawn = draw(
        engine,
        ImageRequest("fine", "a fox", sampling=ImageSampling(num_inference_steps=50, **options)),
        ImageRequest("other", "a fox", sampling=ImageSampling(num_inference_steps=30, sampler=sampler, **options)),
    )
    assert np.abs(drawn.pixels("fine") - drawn.pixels("other")).mean() < 5


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("stable-diffusion", "StableDiffusionImg2ImgPipeline"),
        ("stable-diffusion-xl", "StableDiffusionXLImg2ImgPipeline"),
        ("stable-diffusion-3", "StableDiffusion3Img2ImgPipeline"),
    ],
)
@pytest.mark.parametrize("strength", [0.35, 0.8])
def test_initial_pictures_equal_the_pipeline_made_for_them(family: str, kind: str, strength: float) -> None:
    pipe = diffusers_pipelines.make(family)
    initial = encoded()
    options: dict[str, Any] = {"num_inference_steps": 9, "guidance_scale": 4.0, "strength": strength}
    drawn = draw(
        engine_on(pipe),
        ImageRequest("a", "a fox", sampling=ImageSampling(seed=5, **options, **SIZE), init_image=initial),
        ImageRequest("b", "a dog", sampling=ImageSampling(seed=6, **SIZE, num_inference_steps=4)),
    )
    other = getattr(diffusers, kind)(**pipe.components)
    other.set_progress_bar_config(disable=True)
    picture = Image.fromarray(open_rgb(initial).astype(np.uint8))
    expected = reference(other, "a fox", image=picture, seed=5, **options)
    assert np.abs(drawn.pixels("a") - expected).max() <= TOLERANCE


def test_inpainting_equals_the_pipeline_made_for_it() -> None:
    pipe = diffusers_pipelines.make("stable-diffusion")
    initial, mask = encoded(), half_mask()
    options: dict[str, Any] = {"num_inference_steps": 8, "guidance_scale": 4.0, "strength": 0.75}
    request = ImageRequest(
        "a", "a fox", sampling=ImageSampling(seed=5, **options, **SIZE), init_image=initial, mask_image=mask
    )
    drawn = draw(engine_on(pipe), request).pixels("a")
    other = diffusers.StableDiffusionInpaintPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    picture, where = (Image.fromarray(open_rgb(data).astype(np.uint8)) for data in (initial, mask))
    expected = reference(
        other, "a fox", image=picture, mask_image=where.convert("L"), height=32, width=32, seed=5, **options
    )
    assert np.abs(drawn[:, 16:] - expected[:, 16:]).max() <= TOLERANCE
    assert np.abs(drawn[:, :16] - open_rgb(initial)[:, :16]).max() <= TOLERANCE


def test_consistency_models_take_guidance_as_an_input() -> None:
    torch.manual_seed(0)
    pipe = diffusers_pipelines.stable_diffusion(time_cond_proj_dim=16)
    pipe.scheduler = diffusers.LCMScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=True)
    options: dict[str, Any] = {"num_inference_steps": 4, "guidance_scale": 6.0, "seed": 2}
    drawn = draw(engine_on(pipe), ImageRequest("a", "a fox", sampling=ImageSampling(**options, **SIZE)))
    expected = reference(pipe, "a fox", **options, height=32, width=32)
    assert np.abs(drawn.pixels("a") - expected).max() <= TOLERANCE


def test_class_models_draw_what_they_have_a_name_for() -> None:
    pipe = diffusers_pipelines.make("dit")
    sampling = ImageSampling(num_inference_steps=5, guidance_scale=3.0, seed=4)
    drawn = draw(
        engine_on(pipe),
        ImageRequest("a", "Goldfish", sampling=sampling),
        ImageRequest("b", "goldfisch", sampling=sampling),
    )
    generator = torch.Generator().manual_seed(4)
    expected = pipe([1], guidance_scale=3.0, generator=generator, num_inference_steps=5).images[0]
    assert np.abs(drawn.pixels("a") - np.asarray(expected).astype(np.int16)).max() <= TOLERANCE
    assert "goldfish" in drawn.failure("b").message


@pytest.mark.parametrize(
    ("options", "said"),
    [({"width_px": 33, "height_px": 32}, "multiples of"), ({"width_px": 512, "height_px": 512}, "too far")],
)
def test_sizes_that_cannot_be_had_are_told_with_what_can(options: dict[str, int], said: str) -> None:
    engine = engine_on(diffusers_pipelines.make("stable-diffusion"))
    request = ImageRequest("a", "a fox", sampling=ImageSampling(num_inference_steps=1, **options))
    assert said in draw(engine, request).failure("a").message


@pytest.mark.parametrize(("aspect", "size"), [("1:1", (32, 32)), ("2:1", (44, 24)), ("9:16", (24, 44))])
def test_aspect_ratios_keep_about_the_models_own_number_of_pixels(aspect: str, size: tuple[int, int]) -> None:
    engine = engine_on(diffusers_pipelines.make("stable-diffusion"))
    sampling = ImageSampling(num_inference_steps=1, aspect_ratio=aspect)
    picture = draw(engine, ImageRequest("a", "a fox", sampling=sampling)).pictures["a", 0]
    assert (picture.width_px, picture.height_px) == size
