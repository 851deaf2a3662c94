"""Which road a model takes is decided by trying, and a wrong one is never taken."""

from __future__ import annotations

import pytest
import torch

from generation import torch_devices
from generation.chat import runtime
from generation.chat.attention import Attention
from generation.chat.config import ChatConfig
from generation.chat.engine import ChatEngine
from generation.chat.forward import PackedForward, TransformersDecoder
from generation.chat.fused import FusedDecoder
from generation.chat.runtime import prepare
from generation.chat.sequential import SequentialForward
from generation.errors import OutOfMemoryError
from tests.chat_models import FAMILIES, as_loaded, drain, generated, letter_tokenizer, prompt_of, request, tiny_model

FUSED = {"llama", "llama-mha", "llama-mqa", "mistral", "qwen2", "qwen3"}


def decoder_of(family: str, dtype: torch.dtype = torch.float32) -> object:
    forward = prepare(as_loaded(tiny_model(family).to(dtype), letter_tokenizer()), ChatConfig()).forward
    assert isinstance(forward, PackedForward)
    return forward._decoder


@pytest.mark.parametrize("family", FAMILIES)
def test_models_of_the_llama_kind_are_written_out(family: str) -> None:
    assert type(decoder_of(family)) is (FusedDecoder if family in FUSED else TransformersDecoder)


@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_weights_in_new_layouts_compute_the_same_and_replace_the_old(family: str) -> None:
    model, reference = (tiny_model(family).bfloat16() for _ in range(2))
    forward = prepare(as_loaded(model, letter_tokenizer()), ChatConfig()).forward
    assert isinstance(forward, PackedForward)
    assert isinstance(forward._decoder, FusedDecoder)
    assert model.model.layers[0].self_attn.q_proj.weight.numel() == 0, "memory holds no third copy"
    engine = ChatEngine(as_loaded(tiny_model(family).bfloat16(), letter_tokenizer()), ChatConfig())
    chat = request("r", "Hello there", max_new_tokens=1)
    engine.submit(chat)
    text = drain(engine).text["r"]
    with torch.inference_mode():
        logits = reference(torch.tensor([prompt_of(chat, letter_tokenizer())])).logits[0, -1].float()
    token = letter_tokenizer()(text, add_special_tokens=False)["input_ids"][0]
    assert float(logits.max() - logits[token]) < 0.05 * float(logits.abs().max())


def test_a_decoder_that_computes_something_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    right = FusedDecoder.logits

    def wrong(
        self: FusedDecoder, token_ids: torch.Tensor, positions: torch.Tensor, attention: Attention, keep: torch.Tensor
    ) -> torch.Tensor:
        return right(self, token_ids, positions + 1, attention, keep) * 1.01

    monkeypatch.setattr(FusedDecoder, "logits", wrong)
    assert type(decoder_of("llama")) is TransformersDecoder


def test_a_model_whose_packed_pass_differs_runs_alone_and_right(monkeypatch: pytest.MonkeyPatch) -> None:
    right = TransformersDecoder.logits

    def wrong(
        self: TransformersDecoder,
        token_ids: torch.Tensor,
        positions: torch.Tensor,
        attention: Attention,
        keep: torch.Tensor,
    ) -> torch.Tensor:
        return right(self, token_ids, positions, attention, keep) * 1.01

    monkeypatch.setattr(TransformersDecoder, "logits", wrong)
    model, tokenizer = tiny_model("llama"), letter_tokenizer()
    engine = ChatEngine(as_loaded(model, tokenizer), ChatConfig())
    assert isinstance(engine._forward, SequentialForward)
    chat = request("r", "Hello")
    engine.submit(chat)
    expected = tokenizer.decode(generated(tiny_model("llama"), prompt_of(chat, tokenizer), 12))
    assert drain(engine).text["r"] == expected


def test_no_memory_to_try_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(TransformersDecoder, "logits", full)
    with pytest.raises(OutOfMemoryError, match="smaller model"):
        decoder_of("llama")


def test_without_room_for_copies_weights_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = as_loaded(tiny_model("llama").bfloat16(), letter_tokenizer())
    assert runtime._takes_compact(loaded)
    monkeypatch.setattr(torch_devices, "free_memory_bytes", lambda device: 50_000)
    assert not runtime._takes_compact(loaded)
    assert not runtime._takes_compact(as_loaded(tiny_model("llama"), letter_tokenizer()))
