"""The factory as an engine process calls it: a directory as training exports it, real text encoders, real upscaler."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from generation.image.factory import build
from generation.types import Finished, ImageRequest, ImageSampling
from tests import embedded_model
from tests.image_models import STYLES, draw, save_embedded

SAMPLING = ImageSampling(num_inference_steps=4, seed=3)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_embedded(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model: Path) -> Iterator[Any]:
    engine = new(model)
    yield engine
    engine.close()


def new(model: Path, **options: object) -> Any:
    told: list[str] = []
    engine = build(
        {"model": str(model), "data_dir": str(embedded_model.DATA_DIR), "device": "cpu", **options},
        lambda what, _share: told.append(what),
    )
    assert "loading the image model" in told
    return engine


def test_the_engine_says_what_it_runs(engine: Any, model: Path) -> None:
    info = engine.info
    assert (info.model, info.backend, info.device) == (str(model), "step-level batching", "cpu")
    assert (info.dtype, info.capacity, info.context_tokens) == ("float32", 4, 16)


def test_two_engines_draw_the_same_whatever_is_beside(engine: Any, model: Path) -> None:
    other = new(model, rows=1)
    wanted = ImageRequest("a", "a red fox in the snow", sampling=SAMPLING)
    beside = [ImageRequest(str(number), "a boat", sampling=ImageSampling(num_inference_steps=6)) for number in range(4)]
    together, alone = draw(engine, wanted, *beside), draw(other, wanted)
    other.close()
    assert np.abs(together.pixels("a") - alone.pixels("a")).max() <= 1
    assert together.pixels("a").shape == (128, 128, 3), "four times the 32 px it is drawn at"


def test_words_in_both_languages_and_styles_make_a_difference(engine: Any) -> None:
    prompts = {"fox": "a red fox", "boat": "a boat", "狐狸": "一只红狐狸", "船": "一条船"}
    requests = [ImageRequest(name, prompt, sampling=SAMPLING) for name, prompt in prompts.items()]
    styled = ImageSampling(num_inference_steps=4, seed=3, style=STYLES[1])
    drawn = draw(engine, *requests, ImageRequest("styled", prompts["fox"], sampling=styled))
    assert all(isinstance(end, Finished) for end in drawn.ends.values())
    pictures = [drawn.pixels(name) for name in (*prompts, "styled")]
    for place, first in enumerate(pictures):
        assert all(np.abs(first - second).max() > 2 for second in pictures[:place])


def test_the_real_upscaler_enlarges_up_to_sixteen_times(engine: Any) -> None:
    sampling = ImageSampling(num_inference_steps=2, seed=3, width_px=512, height_px=512)
    assert draw(engine, ImageRequest("a", "a boat", sampling=sampling)).pixels("a").shape == (512, 512, 3)
