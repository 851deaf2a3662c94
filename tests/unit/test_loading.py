"""Models of every family load from a directory; what is wrong with one is told in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from generation import torch_devices
from generation.chat.config import ChatConfig
from generation.chat.loading import LoadedModel, load
from generation.chat.prompt import CHATML_TEMPLATE
from generation.errors import ModelCorruptError, ModelError, ModelNotFoundError, OutOfMemoryError
from tests.chat_models import byte_tokenizer, tiny_model


@pytest.fixture
def saved(tmp_path: Path) -> Callable[..., Path]:
    """A function that saves a tiny random model of a family to a directory."""

    def save(family: str, **options: object) -> Path:
        directory = tmp_path / family
        model = tiny_model(family)
        model.generation_config.eos_token_id = [7, 8]
        model.save_pretrained(directory, **options)
        byte_tokenizer().save_pretrained(directory)
        return directory

    return save


def load_from(directory: Path, **options: object) -> LoadedModel:
    told: list[str] = []
    config = ChatConfig(model=str(directory), device="cpu", dtype="float32", **options)
    loaded = load(config, lambda stage, _: told.append(stage))
    assert told == ["checking the files", "loading the tokenizer", "loading the weights"]
    return loaded


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "mistral", "phi3", "smollm3"])
def test_a_family_loads_from_a_directory_as_it_was_saved(saved, family):
    loaded = load_from(saved(family))
    model, original = loaded.model, tiny_model(family)
    token_ids = torch.arange(20)[None]
    with torch.no_grad():
        assert torch.equal(model(token_ids).logits, original(token_ids).logits)
    assert not model.training
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert loaded.eos_token_ids == {7, 8, loaded.tokenizer.eos_token_id}
    assert loaded.context_tokens == 512


def test_numbers_are_as_configured(saved):
    config = ChatConfig(model=str(saved("llama")), device="cpu", dtype="bfloat16", context_tokens=100)
    loaded = load(config, lambda *_: None)
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.bfloat16}
    assert loaded.dtype == torch.bfloat16
    assert loaded.context_tokens == 100


def test_more_context_than_the_model_has_is_refused(saved):
    with pytest.raises(ModelError, match=r"was made for 512 tokens of context, not 600\. Lower context_tokens"):
        load_from(saved("llama"), context_tokens=600)


def test_a_model_without_template_gets_a_common_one(saved):
    directory = saved("llama")
    (directory / "chat_template.jinja").unlink()
    assert load_from(directory).tokenizer.chat_template == CHATML_TEMPLATE


def test_weights_in_several_files_load_and_one_that_is_missing_is_named(saved):
    directory = saved("llama", max_shard_size="30kB")
    shards = sorted(directory.glob("*.safetensors"))
    assert len(shards) > 1
    assert load_from(directory).model.dtype == torch.float32
    shards[0].unlink()
    with pytest.raises(ModelCorruptError, match=f"{shards[0].name} is missing"):
        load_from(directory)


def test_pickled_weights_are_loaded_only_when_allowed(saved):
    directory = saved("llama")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"no safetensors weights.*allow_pickle"):
        load_from(directory)
    assert load_from(directory, allow_pickle=True).model.dtype == torch.float32


def test_a_model_that_cannot_fit_is_refused_with_both_numbers(saved, monkeypatch):
    monkeypatch.setattr(torch_devices, "free_memory_bytes", lambda _: 50_000_000)
    directory = saved("llama")
    assert load_from(directory).model.dtype == torch.float32
    monkeypatch.setattr(torch_devices, "free_memory_bytes", lambda _: 50_000)
    with pytest.raises(OutOfMemoryError, match=r"take 0\.0 GB and 0\.0 GB are free on cpu\. Choose a smaller model"):
        load_from(directory)


def truncate(directory: Path) -> None:
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def drop_a_weight(directory: Path) -> None:
    weights = load_file(directory / "model.safetensors")
    weights.pop("model.norm.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def edit_config(**changes: object) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return edit


@pytest.mark.parametrize(
    ("damage", "error", "told"),
    [
        (truncate, ModelCorruptError, "model.safetensors is broken or cut short. Copy the model again."),
        (lambda path: (path / "model.safetensors").write_bytes(b""), ModelCorruptError, "is broken or cut short"),
        (lambda path: (path / "config.json").write_text("{"), ModelCorruptError, "bad config.json"),
        (lambda path: (path / "config.json").unlink(), ModelNotFoundError, "holds no model: it has no config.json"),
        (lambda path: (path / "tokenizer.json").write_text("{}"), ModelCorruptError, "no usable tokenizer"),
        (
            lambda path: (path / "model.safetensors.index.json").write_text("[]"),
            ModelCorruptError,
            "index.json is broken",
        ),
        (drop_a_weight, ModelCorruptError, "lacks 1 of the model's weights"),
        (edit_config(hidden_size=48), ModelError, "cannot be loaded"),
        (edit_config(model_type="unheard-of"), ModelCorruptError, "bad config.json"),
        (edit_config(auto_map={"AutoConfig": "evil.Evil"}, model_type="x"), ModelCorruptError, "bad config.json"),
        (shutil.rmtree, ModelNotFoundError, "There is no model"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(saved, damage, error, told):
    directory = saved("llama")
    damage(directory)
    with pytest.raises(error) as caught:
        load_from(directory)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
