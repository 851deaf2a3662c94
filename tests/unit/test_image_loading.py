"""Image models from directories: what loads, what is refused and how that is told; LoRA files; the sequential road."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from generation.errors import GenerationError, ModelCorruptError, ModelError, ModelNotFoundError
from generation.image.config import ImageConfig
from generation.image.engine import ImageEngine
from generation.image.factory import build
from generation.image.families.embedded import load_embedded
from generation.image.loading import load
from generation.image.sequential import SequentialEngine
from generation.learning.sources import hashed_words
from generation.types import Finished, ImageRequest, ImageSampling
from tests import diffusers_pipelines
from tests.image_models import CPU, STYLES, draw, request, save_embedded, tiny_family, tiny_upscaler

SAMPLING = ImageSampling(num_inference_steps=3, seed=1, width_px=32, height_px=32)


def quiet(_: str, __: float | None) -> None:
    """Tell nobody."""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny-sd"
    diffusers_pipelines.make("stable-diffusion").save_pretrained(directory)
    return directory


def config(directory: Path, **options: Any) -> ImageConfig:
    return ImageConfig(
        model=str(directory), data_dir=directory.parent / "data", device="cpu", dtype="float32", **options
    )


def test_a_saved_pipeline_draws_as_before(saved: Path) -> None:
    pipe = diffusers_pipelines.make("stable-diffusion")
    family = load(config(saved), quiet)
    drawn = draw(ImageEngine(family, tiny_upscaler(), 2), ImageRequest("a", "a fox", sampling=SAMPLING))
    expected = pipe("a fox", num_inference_steps=3, generator=torch.Generator().manual_seed(1), height=32, width=32)
    assert np.abs(drawn.pixels("a") - np.asarray(expected.images[0]).astype(np.int16)).max() <= 1


def test_the_embedded_layout_loads_with_its_styles(tmp_path: Path) -> None:
    family = load_embedded(
        "tiny", save_embedded(tmp_path), CPU, torch.float32, lambda: lambda texts: hashed_words(list(texts))
    )
    assert family.styles == STYLES
    engine, reference = ImageEngine(family, tiny_upscaler(), 2), ImageEngine(tiny_family(), tiny_upscaler(), 2)
    wanted = request("a", style="soft")
    assert np.abs(draw(engine, wanted).pixels("a") - draw(reference, wanted).pixels("a")).max() <= 1


def test_a_missing_embedded_model_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="Set the image model"):
        load_embedded("tiny", tmp_path, CPU, torch.float32, lambda: hashed_words)  # type: ignore[arg-type,return-value]


@pytest.mark.parametrize(
    ("spoil", "kind", "said"),
    [
        (lambda folder: (folder / "model_index.json").unlink(), ModelNotFoundError, "model_index.json"),
        (lambda folder: (folder / "model_index.json").write_text("{"), ModelCorruptError, "is broken"),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").write_bytes(b"short"),
            ModelCorruptError,
            "cut short",
        ),
        (
            lambda folder: (folder / "unet/diffusion_pytorch_model.safetensors").rename(
                folder / "unet/diffusion_pytorch_model.bin"
            ),
            ModelError,
            "no safetensors",
        ),
        (lambda folder: _edit_index(folder, unet=["my_code", "MyUNet"]), ModelError, "code of its own"),
        (lambda folder: _edit_index(folder, _class_name="NoSuchPipeline"), ModelError, "cannot be loaded"),
        (lambda folder: (folder / "vae/config.json").unlink(), ModelError, "cannot be loaded"),
    ],
)
def test_what_is_wrong_with_a_directory_is_told_in_one_line(
    saved: Path, tmp_path: Path, spoil: Any, kind: type[GenerationError], said: str
) -> None:
    import shutil

    folder = tmp_path / "model"
    shutil.copytree(saved, folder)
    spoil(folder)
    with pytest.raises(kind, match=said) as raised:
        load(config(folder), quiet)
    assert "\n" not in str(raised.value)


def _edit_index(folder: Path, **changes: Any) -> None:
    path = folder / "model_index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modle": "x"}, "Unknown option of the image model: modle"),
        ({"rows": -1}, "rows"),
        ({"device": "tpu"}, "device"),
        ({"preview_px": 7}, "preview_px"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], said: str) -> None:
    with pytest.raises(ModelError, match=said):
        build(options, quiet)


def test_an_unknown_model_is_told_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no model"):
        build({"model": "no such model", "data_dir": str(tmp_path)}, quiet)


def lora_file(folder: Path, pipe: Any) -> Path:
    """A LoRA of one attention layer in diffusers' own format."""
    name = next(name for name, _ in pipe.unet.named_parameters() if name.endswith("attn2.to_k.weight"))
    weight = pipe.unet.get_parameter(name)
    base = f"unet.{name.removesuffix('.weight')}"
    generator = torch.Generator().manual_seed(0)
    path = folder / "style.safetensors"
    save_file(
        {
            f"{base}.lora_A.weight": torch.randn(2, weight.shape[1], generator=generator),
            f"{base}.lora_B.weight": torch.randn(weight.shape[0], 2, generator=generator),
        },
        path,
    )
    return path


def test_lora_files_change_the_weights_by_their_scale(saved: Path, tmp_path: Path) -> None:
    pipe = diffusers_pipelines.make("stable-diffusion")
    path = lora_file(tmp_path, pipe)
    pictures = {}
    for entry in ("none", f"{path}:0", str(path), f"{path}:0.5"):
        loras = () if entry == "none" else (entry,)
        family = load(config(saved, loras=loras), quiet)
        drawn = draw(ImageEngine(family, tiny_upscaler(), 2), ImageRequest("a", "a fox", sampling=SAMPLING))
        pictures[entry] = drawn.pixels("a")
    assert np.abs(pictures["none"] - pictures[f"{path}:0"]).max() <= 1
    assert np.abs(pictures["none"] - pictures[str(path)]).max() > 1
    assert np.abs(pictures[f"{path}:0.5"] - pictures[str(path)]).max() > 1
    pipe.load_lora_weights(path.parent, weight_name=path.name)
    expected = pipe("a fox", num_inference_steps=3, generator=torch.Generator().manual_seed(1), height=32, width=32)
    assert np.abs(pictures[str(path)] - np.asarray(expected.images[0]).astype(np.int16)).max() <= 1


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "no LoRA file"), (b"short", "broken"), ("other", "made for another model|cannot be added")],
)
def test_wrong_lora_files_are_told(saved: Path, tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "lora.safetensors"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content:
        save_file({"something.else": torch.zeros(3)}, path)
    with pytest.raises(ModelError, match=said):
        load(config(saved, loras=(str(path),)), quiet)


def odd_pipeline() -> Any:
    """A pipeline of a family that is not known: like Stable Diffusion, under another name."""

    class OddPipeline(diffusers.StableDiffusionPipeline):
        pass

    pipe = diffusers_pipelines.make("stable-diffusion")
    odd = OddPipeline(**pipe.components, requires_safety_checker=False)
    odd.set_progress_bar_config(disable=True)
    return odd


@pytest.fixture(scope="module")
def odd() -> Any:
    return odd_pipeline()


def test_unknown_families_run_through_their_own_pipeline_and_say_so(odd: Any) -> None:
    engine = SequentialEngine("odd", odd, tiny_upscaler())
    assert engine.info.backend == "one at a time (OddPipeline)"
    sampling = ImageSampling(num_inference_steps=4, seed=6, n=2, width_px=32, height_px=32)
    drawn = draw(engine, ImageRequest("a", "a fox", "dog", sampling=sampling), request("b", upscale=2))
    for index in range(2):
        expected = odd(
            "a fox",
            negative_prompt="dog",
            num_inference_steps=4,
            generator=torch.Generator().manual_seed(6 + index),
            height=32,
            width=32,
        )
        assert np.abs(drawn.pixels("a", index) - np.asarray(expected.images[0]).astype(np.int16)).max() <= 1
    assert [event.step for event in drawn.progress["a"]] == [1, 2, 3, 4]
    assert drawn.pixels("b").shape == (64, 64, 3)
    end = drawn.ends["a"]
    assert isinstance(end, Finished)
    assert end.usage.image_steps == 8
    engine.close()


def test_the_sequential_road_stops_within_a_step(odd: Any) -> None:
    engine = SequentialEngine("odd", odd, tiny_upscaler())
    engine.submit(request("a", num_inference_steps=100))
    engine.submit(request("b", num_inference_steps=2))
    engine.submit(request("late", num_inference_steps=100, deadline_s=0.0))
    engine.step()
    engine.step()
    engine.cancel("a")
    started_s = time.monotonic()
    from tests.image_models import drain

    drawn = drain(engine)
    assert drawn.steps < 10
    assert set(drawn.ends) <= {"b", "late"}
    assert isinstance(drawn.ends["b"], Finished)
    assert time.monotonic() - started_s < 60
    engine.submit(request("c", num_inference_steps=100))
    engine.step()
    engine.close()
    assert not engine.busy


@pytest.mark.parametrize(
    "options", [{"sampler": "ddim"}, {"style": "flat"}, {"init_image": b"x"}, {"width_px": 33}, {"aspect_ratio": "2:1"}]
)
def test_what_a_pipeline_does_not_take_is_told(odd: Any, options: dict[str, Any]) -> None:
    engine = SequentialEngine("odd", odd, tiny_upscaler())
    drawn = draw(engine, request("bad", **options), request("good", num_inference_steps=1))
    assert drawn.failure("bad").code == "invalid_request"
    assert isinstance(drawn.ends["good"], Finished)
    engine.close()


def test_pipelines_that_do_not_draw_from_text_are_refused() -> None:
    pipe = diffusers_pipelines.make("dit")
    with pytest.raises(ModelError, match="does not draw from text"):
        SequentialEngine("dit", pipe, tiny_upscaler())
