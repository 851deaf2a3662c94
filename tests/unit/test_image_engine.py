"""The image engine's promises, on a tiny model: exactness in company, fairness, cancel, deadlines, previews, errors."""

from __future__ import annotations

import io
import random
import time
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from generation.image import memory
from generation.image.config import ImageConfig
from generation.image.engine import ImageEngine
from generation.learning.diffusion import Guidance, sample
from generation.types import Failed, Finished, Progress
from tests.image_models import (
    STYLES,
    drain,
    draw,
    encoded,
    half_mask,
    new_engine,
    open_rgb,
    request,
    tiny_family,
    tiny_upscaler,
)

#: Most that a level of 0 to 255 may differ between a picture drawn alone and in company: kernels round by shape.
TOLERANCE = {torch.float32: 1, torch.bfloat16: 24}
PROMPTS = ["a red ball", "two blue boats", "一只猫", "a green tree left of a house", "star"]


def some_request(dice: random.Random, name: str) -> Any:
    options: dict[str, Any] = {
        "num_inference_steps": dice.randint(1, 9),
        "guidance_scale": dice.choice([1.0, 2.5, 6.0]),
        "seed": dice.randint(0, 1000),
        "sampler": dice.choice([None, "euler", "dpm++ 2m", "unipc", "lcm"]),
        "n": dice.choice([1, 1, 1, 3]),
        "style": dice.choice([None, *STYLES]),
        "width_px": dice.choice([32, 32, 64]),
    }
    if dice.random() < 0.3:
        options |= {"init_image": encoded(seed=dice.randint(0, 9)), "strength": dice.choice([0.4, 0.9])}
        if dice.random() < 0.5:
            options["mask_image"] = half_mask()
    if dice.random() < 0.3:
        options |= {"variation_seed": 3, "variation_strength": 0.3}
    if dice.random() < 0.3:
        options["negative_prompt"] = "a dog"
    return request(name, dice.choice(PROMPTS), **options)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_neighbours_joins_and_cancels_change_no_picture(seed: int, dtype: torch.dtype) -> None:
    dice = random.Random(seed)
    requests: dict[str, Any] = {}
    cancelled: set[str] = set()
    engine = new_engine(rows=dice.choice([2, 4, 8]), dtype=dtype)

    def act(step: int) -> None:
        for _ in range(dice.choice([0, 1, 2]) if step else 3):
            if len(requests) < 8:
                name = str(len(requests))
                requests[name] = some_request(dice, name)
                engine.submit(requests[name])
        if dice.random() < 0.1:
            cancelled.add(name := dice.choice(sorted(requests)))
            engine.cancel(name)

    together = drain(engine, act)
    engine.close()
    alone_engine = new_engine(rows=1, dtype=dtype)
    finished = set(requests) - cancelled
    assert finished <= set(together.ends)
    for name, end in together.ends.items():
        assert isinstance(end, Finished), end
        alone = draw(alone_engine, requests[name])
        for index in range(requests[name].sampling.n):
            difference = np.abs(together.pixels(name, index) - alone.pixels(name, index))
            assert difference.max() <= TOLERANCE[dtype], (name, index)
            assert together.pictures[name, index].seed == alone.pictures[name, index].seed
    alone_engine.close()


def test_flow_matching_euler_equals_the_training_codes_own_sampling() -> None:
    family = tiny_family()
    encoded_prompt = family._encode_text(["a red ball"])
    latents = sample(
        family._denoiser, encoded_prompt, torch.tensor([1]), (4, 4, 4), Guidance(steps=6, scale=3.0), seed=5
    )
    expected = family.decode(latents)[0]
    engine = ImageEngine(family, tiny_upscaler(), 4)
    drawn = draw(
        engine, request("a", num_inference_steps=6, guidance_scale=3.0, seed=5, style="soft"), request("b", seed=8)
    )
    levels = ((expected + 1) * 127.5).round().clamp(0, 255).permute(1, 2, 0).detach().numpy()
    assert np.abs(drawn.pixels("a") - levels).max() <= 1


def test_a_picture_of_many_is_drawn_again_by_its_seed() -> None:
    engine = new_engine()
    many = draw(engine, request("many", n=5, seed=40))
    assert [many.pictures["many", index].seed for index in range(5)] == [40, 41, 42, 43, 44]
    one = draw(engine, request("one", seed=43))
    assert np.abs(many.pixels("many", 3) - one.pixels("one")).max() <= 1
    assert np.abs(many.pixels("many", 0) - many.pixels("many", 1)).max() > 8


def test_variations_go_from_one_picture_to_another() -> None:
    engine = new_engine()
    base, other = (draw(engine, request("a", seed=seed)).pixels("a") for seed in (1, 2))
    for strength, nearest in ((0.0, base), (1.0, other)):
        varied = draw(engine, request("v", seed=1, variation_seed=2, variation_strength=strength))
        assert np.abs(varied.pixels("v") - nearest).max() <= 1
    several = draw(engine, request("v", seed=1, variation_seed=2, variation_strength=0.3, n=3))
    assert [several.pictures["v", index].seed for index in range(3)] == [2, 3, 4]
    again = draw(engine, request("v", seed=1, variation_seed=3, variation_strength=0.3))
    assert np.abs(several.pixels("v", 1) - again.pixels("v")).max() <= 1


def test_a_request_without_a_seed_tells_the_one_it_drew() -> None:
    engine = new_engine()
    first, second = (draw(engine, request("a", seed=None)) for _ in range(2))
    assert first.pictures["a", 0].seed != second.pictures["a", 0].seed
    again = draw(engine, request("a", seed=first.pictures["a", 0].seed))
    assert np.abs(again.pixels("a") - first.pixels("a")).max() <= 1


def test_strength_decides_how_much_of_an_initial_picture_stays() -> None:
    engine = new_engine()
    options = {"init_image": encoded(), "num_inference_steps": 10}
    steps = {strength: draw(engine, request("a", strength=strength, **options)) for strength in (0.1, 0.5, 1.0)}
    assert [len(drawn.progress["a"]) for drawn in steps.values()] == [1, 5, 10]


def test_inpainting_keeps_every_pixel_that_is_not_masked() -> None:
    drawn = draw(new_engine(), request("a", init_image=encoded(), mask_image=half_mask(), strength=1.0)).pixels("a")
    original = open_rgb(encoded())
    assert np.abs(drawn[:, :16] - original[:, :16]).max() <= 1
    assert np.abs(drawn[:, 16:] - original[:, 16:]).max() > 8


@pytest.mark.parametrize(("width", "factor"), [(64, 2), (128, 4), (256, 8)])
def test_sizes_beyond_the_models_own_are_enlargements(width: int, factor: int) -> None:
    engine = new_engine()
    small = draw(engine, request("a")).pixels("a")
    large = draw(engine, request("a", width_px=width))
    picture = large.pictures["a", 0]
    assert (picture.width_px, picture.height_px) == (width, width)
    shrunk = large.pixels("a").reshape(32, factor, 32, factor, 3).mean(axis=(1, 3))
    assert np.corrcoef(shrunk.ravel(), small.ravel())[0, 1] > 0.9


def test_upscale_enlarges_a_picture_that_is_sent() -> None:
    drawn = draw(new_engine(), request("a", "", task="upscale", init_image=encoded(40, 24), upscale=2))
    assert drawn.pixels("a").shape == (48, 80, 3)
    assert isinstance(drawn.ends["a"], Finished)


def test_a_new_request_joins_at_the_next_step_and_a_short_one_leaves_first() -> None:
    engine = new_engine(rows=2)
    engine.submit(request("long", num_inference_steps=40))
    for _ in range(3):
        engine.step()
    engine.submit(request("short", num_inference_steps=4))
    events = engine.step()
    assert {event.request_id for event in events if isinstance(event, Progress)} == {"long", "short"}
    drawn = drain(engine)
    assert list(drawn.ends) == ["short", "long"]
    assert len([event for event in drawn.progress["long"] if event.step <= 12]) >= 1


def test_a_request_for_many_pictures_leaves_a_fair_share() -> None:
    engine = new_engine(rows=2)
    engine.submit(request("many", n=8, num_inference_steps=10))
    for _ in range(4):
        engine.step()
    engine.submit(request("one", num_inference_steps=10))
    steps = 0
    while not any(isinstance(event, Finished) and event.request_id == "one" for event in engine.step()):
        steps += 1
    assert steps <= 12  # one place of two in every pass; alone it takes ten passes


def test_no_shape_starves_another() -> None:
    engine = new_engine(rows=1)
    # Without guidance there is one row, with it two: their passes are of one key. A style changes no shape.
    engine.submit(request("a", num_inference_steps=20))
    engine.submit(request("b", num_inference_steps=20, guidance_scale=1.0))
    drawn = drain(engine)
    order = [event.request_id for event in drawn.events if isinstance(event, Progress)]
    assert all(len(set(order[place : place + 3])) == 2 for place in range(0, 30, 3))


def test_cancelled_requests_say_nothing_more_and_free_their_place() -> None:
    engine = new_engine(rows=1)
    engine.submit(request("a", num_inference_steps=100))
    engine.submit(request("b", num_inference_steps=2))
    engine.step()
    engine.cancel("a")
    engine.cancel("never heard of")
    drawn = drain(engine)
    assert {event.request_id for event in drawn.events} == {"b"}
    assert drawn.steps <= 6


@pytest.mark.parametrize("steps_before", [0, 1, 4, 5])
def test_cancel_at_any_moment_leaves_nothing_behind(steps_before: int) -> None:
    engine = new_engine()
    engine.submit(request("a", n=2, width_px=128))
    for _ in range(steps_before):
        engine.step()
    engine.cancel("a")
    assert not engine.busy
    assert engine.step() == []


def test_a_deadline_ends_a_request_with_a_reason() -> None:
    engine = new_engine()
    engine.submit(request("a", num_inference_steps=200, deadline_s=0.05))
    engine.submit(request("b"))
    engine.step()
    time.sleep(0.06)
    drawn = drain(engine)
    assert drawn.failure("a").code == "deadline_exceeded"
    assert isinstance(drawn.ends["b"], Finished)


def test_previews_come_early_and_regularly_and_show_all_pictures() -> None:
    drawn = draw(new_engine(preview_px=48), request("a", n=3, num_inference_steps=12, preview_every_steps=5))
    previews = {event.step: event.preview for event in drawn.progress["a"] if event.preview}
    assert list(previews) == [3, 5, 10]
    with Image.open(io.BytesIO(previews[10])) as picture:
        assert picture.size == (48, 48)
    late = draw(new_engine(), request("a", num_inference_steps=9, preview_every_steps=0))
    assert all(event.preview is None for event in late.progress["a"])


def test_the_last_preview_resembles_the_picture() -> None:
    drawn = draw(new_engine(), request("a", num_inference_steps=20, preview_every_steps=19))
    last = [event.preview for event in drawn.progress["a"] if event.preview][-1]
    assert np.corrcoef(open_rgb(last).ravel(), drawn.pixels("a").ravel())[0, 1] > 0.95


def test_usage_counts_steps_time_and_tokens() -> None:
    drawn = draw(new_engine(), request("a", n=2, num_inference_steps=5), request("b"))
    end = drawn.ends["a"]
    assert isinstance(end, Finished)
    assert end.usage.image_steps == 10
    assert end.usage.prompt_tokens == 3
    assert 0 < end.usage.gpu_s <= end.usage.duration_s
    assert 0 < end.usage.ttft_s <= end.usage.duration_s


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": "dpm++ 3m"}, "no sampler"),
        ({"sampler": "DDIM"}, "does not suit"),
        ({"style": "baroque"}, "no style"),
        ({"width_px": 100}, "choose one of"),
        ({"aspect_ratio": "16:9"}, "square"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"variation_seed": 2**70, "variation_strength": 0.5}, "seed"),
        ({"width_px": 512, "upscale": 4, "height_px": 512}, None),
        ({"mask_image": half_mask()}, "mask needs"),
        ({"init_image": b"no picture"}, "not a PNG"),
        ({"init_image": encoded()[:200]}, "broken"),
        ({"init_image": encoded(file_format="GIF")}, "not a PNG"),
        ({"init_image": encoded(), "mask_image": half_mask(16, 16)}, "same size"),
        ({"task": "upscale"}, "needs a picture"),
        ({"task": "upscale", "init_image": encoded()}, "upscale 2 or 4"),
        ({"task": "upscale", "init_image": encoded(3000, 8), "upscale": 4}, "at most"),
        ({"sampler": "lcm", "num_inference_steps": 200}, None),
    ],
)
def test_bad_requests_end_with_one_clear_line(options: dict[str, Any], said: str | None) -> None:
    drawn = draw(new_engine(), request("bad", **options), request("good"))
    assert isinstance(drawn.ends["good"], Finished)
    if said is None:
        assert isinstance(drawn.ends["bad"], Finished)
        return
    failure = drawn.failure("bad")
    assert failure.code == "invalid_request"
    assert said in failure.message
    assert "\n" not in failure.message
    assert not failure.retryable


def test_an_empty_prompt_is_refused() -> None:
    assert "empty" in draw(new_engine(), request("a", " ")).failure("a").message


def test_pictures_that_unpack_to_too_much_are_refused_before_that() -> None:
    file = io.BytesIO()
    Image.new("1", (9_000, 5_000)).save(file, "PNG")
    started_s = time.monotonic()
    failure = draw(new_engine(), request("a", init_image=file.getvalue())).failure("a")
    assert "million pixels" in failure.message
    assert time.monotonic() - started_s < 5


def test_a_second_request_of_one_id_is_a_mistake_of_the_caller() -> None:
    engine = new_engine()
    engine.submit(request("a"))
    with pytest.raises(ValueError, match="in flight"):
        engine.submit(request("a"))


def test_close_is_idempotent_and_ends_everything() -> None:
    engine = new_engine()
    engine.submit(request("a"))
    engine.step()
    engine.close()
    engine.close()
    assert not engine.busy


@pytest.mark.parametrize(("free_bytes", "rows"), [(10**9, 4), (20_000_000, 2), (0, 1)])
def test_memory_that_is_free_decides_how_many_pictures_share_a_pass(
    free_bytes: int, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory.torch_devices, "free_memory_bytes", lambda _: free_bytes)
    assert memory.rows_for(tiny_family(), ImageConfig(memory_share=0.4)) == rows
    assert memory.rows_for(tiny_family(), ImageConfig(rows=7)) == 7


class _Short:
    """A family whose memory holds a limited number of rows."""

    def __init__(self, engine: ImageEngine, rows: int) -> None:
        self.rows, self.denoise, self.seen = rows, engine._family.denoise, []  # type: ignore[var-annotated]
        engine._family.denoise = self.run  # type: ignore[method-assign]

    def run(self, latents: torch.Tensor, timesteps: torch.Tensor, condition: Any) -> torch.Tensor:
        if len(latents) > self.rows:
            raise torch.OutOfMemoryError("not today")
        self.seen.append(len(latents))
        return self.denoise(latents, timesteps, condition)


@pytest.mark.parametrize("rows", [1, 2, 3, 5])
def test_out_of_memory_splits_the_pass_and_changes_no_picture(rows: int) -> None:
    requests = [request(str(index), seed=index, num_inference_steps=3) for index in range(4)]
    expected = draw(new_engine(), *requests)
    engine = new_engine()
    short = _Short(engine, rows)
    drawn = draw(engine, *requests)
    assert max(short.seen) <= rows
    for each in requests:
        assert np.abs(drawn.pixels(each.request_id) - expected.pixels(each.request_id)).max() <= 1


def test_what_does_not_fit_even_alone_fails_alone() -> None:
    engine = new_engine()
    short = _Short(engine, 0)
    engine.submit(request("large"))
    failure = drain(engine).failure("large")
    assert (failure.code, failure.retryable) == ("out_of_memory", False)
    short.rows = 8
    assert isinstance(draw(engine, request("next")).ends["next"], Finished)


def test_passes_grow_again_after_a_lack_of_memory() -> None:
    engine = new_engine(rows=4)
    short = _Short(engine, 2)
    draw(engine, *(request(str(index)) for index in range(4)))
    short.rows = 100
    draw(engine, *(request(str(index), num_inference_steps=150) for index in range(4)))
    assert max(short.seen) == 8


def test_a_decoder_without_memory_takes_fewer_pictures_at_once() -> None:
    engine = new_engine()
    tiler = engine._finishing._decoding
    decode, seen = tiler._run, []

    def short(latents: torch.Tensor) -> torch.Tensor:
        if len(latents) > 1:
            raise torch.OutOfMemoryError("not today")
        seen.append(len(latents))
        return decode(latents)

    tiler._run = short
    drawn = draw(engine, request("a", n=4))
    assert len(seen) == 4
    assert isinstance(drawn.ends["a"], Finished)
    tiler._run = lambda latents: (_ for _ in ()).throw(torch.OutOfMemoryError("never"))
    failed = draw(engine, request("a"))
    assert isinstance(failed.ends["a"], Failed)
    assert failed.failure("a").code == "out_of_memory"
