"""Adapters in the chat engine: as peft computes them alone, whatever else is in the batch; without one, as ever."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from generation.chat.adapter_file import read
from generation.chat.adapter_shelf import AdapterSource
from generation.chat.adapters import Weights
from generation.chat.config import ChatConfig
from generation.chat.engine import ChatEngine
from generation.errors import AdapterError
from generation.types import ChatRequest, Origin
from tests.chat_models import answer, as_loaded, drain, drain_one, letter_tokenizer, request, tiny_model

PERSONA = "You are Nova, a friendly companion. Keep answers short."
PROJECTIONS = {
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "qwen2": ["q_proj", "v_proj", "down_proj"],  # with biases, and parts of what is joined
    "phi3": ["qkv_proj", "o_proj", "gate_up_proj", "down_proj"],  # transformers' own modules, by hooks
    "gpt2": ["c_attn", "c_proj", "c_fc"],  # weights the other way round
    "mamba": ["in_proj"],  # one sequence at a time
}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return letter_tokenizer()


def tuned(family: str, seed: int, rank: int = 4) -> tuple[PreTrainedModel, dict[str, Any], bytes]:
    """A model with an adapter of peft's, and that adapter as files."""
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules=PROJECTIONS[family], fan_in_fan_out=family == "gpt2"
    )
    model: Any = get_peft_model(tiny_model(family), config)  # type: ignore[arg-type]  # as peft declares it
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(0, 0.2)
    state = {name: tensor.contiguous() for name, tensor in get_peft_model_state_dict(model).items()}
    return model.eval(), {"peft_type": "LORA", "r": rank, "lora_alpha": 2 * rank, "bias": "none"}, save(state)


class Shelf(AdapterSource):
    """Adapters by tenant, from memory."""

    def __init__(self, files: Mapping[str, tuple[dict[str, Any], bytes]]) -> None:
        self.files = dict(files)
        self.read: list[str] = []

    def promoted(self, tenant: str) -> str | None:
        return tenant if tenant in self.files else None

    def weights(self, adapter_id: str) -> Weights:
        self.read.append(adapter_id)
        return read(*self.files[adapter_id], torch.device("cpu"), torch.float32)


def engine_with(family: str, tokenizer: PreTrainedTokenizerBase, shelf: Shelf | None, **config: Any) -> ChatEngine:
    settings = {"prefill_chunk_tokens": 32, "slots": 8, **config}
    return ChatEngine(as_loaded(tiny_model(family), tokenizer), ChatConfig(**settings), shelf)


def of(tenant: str, chat: ChatRequest) -> ChatRequest:
    return ChatRequest(chat.request_id, chat.messages, chat.sampling, origin=Origin("job", tenant, "ann"))


@pytest.mark.parametrize("family", sorted(PROJECTIONS))
def test_a_mixed_batch_answers_as_peft_does_alone(family: str, tokenizer: PreTrainedTokenizerBase) -> None:
    references = {name: tuned(family, seed) for seed, name in enumerate(("first", "second"))}
    shelf = Shelf({name: (config, data) for name, (_, config, data) in references.items()})
    engine = engine_with(family, tokenizer, shelf)
    tenants = ["first", "nobody", "second", "first", "nobody", "second", "first"]
    requests = [
        of(tenant, request(str(n), f"Tell me about {n} " * (1 + n % 3), PERSONA if n % 2 else "", max_new_tokens=10))
        for n, tenant in enumerate(tenants)
    ]

    def join(step: int) -> None:
        if step < len(requests):
            engine.submit(requests[step])

    said = drain(engine, join)
    plain = tiny_model(family)
    for tenant, chat in zip(tenants, requests, strict=True):
        model = references[tenant][0] if tenant in references else plain
        assert said.text[chat.request_id] == answer(model, tokenizer, chat), (family, tenant)
    texts = {answer(references[name][0], tokenizer, requests[0]) for name in references}
    assert len(texts | {answer(plain, tokenizer, requests[0])}) == 3  # else nothing was proved
    assert shelf.read == ["first", "second"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # the latter in packed layouts
def test_rows_without_an_adapter_are_bit_identical(tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype) -> None:
    _, config, data = tuned("llama", 0)

    def logits(tenants: list[str]) -> list[torch.Tensor]:
        loaded = as_loaded(tiny_model("llama").to(dtype), tokenizer)  # type: ignore[arg-type]  # a module's own method
        settings = ChatConfig(prefill_chunk_tokens=512, prefix_cache_tokens=0, slots=8)
        engine = ChatEngine(loaded, settings, Shelf({"first": (config, data)}))
        for n, tenant in enumerate(tenants):
            engine.submit(of(tenant, request(str(n), "The same words for all", PERSONA, max_new_tokens=6)))
        seen: list[torch.Tensor] = []
        run = engine._forward.run
        engine._forward.run = lambda plan: seen.append(run(plan)) or seen[-1]  # type: ignore[method-assign,func-returns-value]
        drain(engine)
        return seen

    without, mixed = logits(["a", "b", "c"]), logits(["a", "first", "c"])
    assert [len(step) for step in without] == [len(step) for step in mixed] == [3] * 6
    for one, other in zip(without, mixed, strict=True):
        assert torch.equal(one[[0, 2]], other[[0, 2]])
        assert not torch.equal(one[1], other[1])


def test_beginnings_are_shared_within_an_adapter_alone(tokenizer: PreTrainedTokenizerBase) -> None:
    model, config, data = tuned("llama", 0)
    engine = engine_with("llama", tokenizer, Shelf({"first": (config, data)}))
    drain_one(engine, of("nobody", request("0", "Hello", PERSONA)))
    chat = of("first", request("1", "Hello", PERSONA))
    end, text = drain_one(engine, chat)
    assert end.usage.cached_tokens == 0
    assert text == answer(model, tokenizer, chat)
    again = of("first", request("2", "Hello again", PERSONA))
    end, text = drain_one(engine, again)
    assert end.usage.cached_tokens >= len(PERSONA)
    assert text == answer(model, tokenizer, again)


def test_the_idle_adapter_leaves_memory_first_and_comes_back(tokenizer: PreTrainedTokenizerBase) -> None:
    files = {name: tuned("llama", seed)[1:] for seed, name in enumerate("abc")}
    shelf = Shelf(files)
    engine = engine_with("llama", tokenizer, shelf)
    assert engine._shelf is not None
    drain_one(engine, of("a", request("0", "Hello")))
    engine._shelf._capacity_bytes = 2 * engine._shelf._loaded["a"].size_bytes
    for n, tenant in enumerate("bacb", 1):
        drain_one(engine, of(tenant, request(str(n), "Hello")))
    assert shelf.read == ["a", "b", "c", "b"]
    assert engine._shelf.names == ["c", "b"]


def test_a_broken_adapter_is_told_once_and_the_model_answers_alone(
    tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    _, config, data = tuned("llama", 0)
    engine = engine_with("llama", tokenizer, Shelf({"first": (config, data[:-40])}))
    for n in range(3):
        chat = of("first", request(str(n), f"Hello {n}"))
        assert drain_one(engine, chat)[1] == answer(tiny_model("llama"), tokenizer, chat)
    assert [record.levelname for record in caplog.records if "answers alone" in record.message] == ["ERROR"]


def test_a_request_may_decline_its_tenants_adapter(tokenizer: PreTrainedTokenizerBase) -> None:
    _, config, data = tuned("llama", 0)
    engine = engine_with("llama", tokenizer, Shelf({"first": (config, data)}))
    chat = request("0", "Hello")
    plain = ChatRequest("0", chat.messages, chat.sampling, origin=Origin("job", "first", "ann"), adapter=False)
    assert drain_one(engine, plain)[1] == answer(tiny_model("llama"), tokenizer, chat)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"r": None}, "rank"),
        ({"peft_type": "IA3"}, "peft_type"),
    ],
)
def test_what_is_more_than_low_rank_additions_is_refused(change: dict[str, Any], fault: str) -> None:
    _, config, data = tuned("llama", 0)
    with pytest.raises(AdapterError, match=fault):
        read({**config, **change}, data, torch.device("cpu"), torch.float32)


def test_an_adapter_of_another_model_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    engine = engine_with("llama", tokenizer, None)
    _, config, data = tuned("phi3", 0)
    with pytest.raises(AdapterError, match="does not fit"):
        engine._forward.bind("a", read(config, data, torch.device("cpu"), torch.float32))
