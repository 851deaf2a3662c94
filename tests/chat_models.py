"""Tiny randomly initialised language models of many families, a byte tokenizer, and the reference to compare with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from generation.chat.config import ChatConfig
from generation.chat.engine import ChatEngine
from generation.chat.loading import LoadedModel
from generation.chat.prompt import CHATML_TEMPLATE, fit
from generation.types import ChatRequest, Delta, EngineEvent, Failed, Finished, Message, Sampling

VOCABULARY = 300
_SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 3, "max_position_embeddings": 512}
_HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 64, "head_dim": 8}

Made = tuple[type, dict[str, object]]

#: Family name to configuration class name and its arguments. Sliding windows are shorter than the tests' prompts.
FAMILIES: dict[str, tuple[str, dict[str, object]]] = {
    "llama": ("LlamaConfig", {**_SMALL, **_HEADS}),
    "llama-mha": ("LlamaConfig", {**_SMALL, **_HEADS, "num_key_value_heads": 4}),
    "llama-mqa": ("LlamaConfig", {**_SMALL, **_HEADS, "num_key_value_heads": 1, "attention_bias": True}),
    "mistral": ("MistralConfig", {**_SMALL, **_HEADS, "sliding_window": 16}),
    "qwen2": ("Qwen2Config", {**_SMALL, **_HEADS}),
    "qwen3": ("Qwen3Config", {**_SMALL, **_HEADS}),
    "gemma2": ("Gemma2Config", {**_SMALL, **_HEADS, "sliding_window": 12, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {**_SMALL, **_HEADS, "sliding_window": 12, "query_pre_attn_scalar": 8}),
    "phi3": ("Phi3Config", {**_SMALL, **_HEADS, "pad_token_id": 0}),
    "gpt-neox": ("GPTNeoXConfig", {**_SMALL, "num_attention_heads": 4, "intermediate_size": 64}),
    "gpt2": ("GPT2Config", {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 512}),
    "opt": ("OPTConfig", {**_SMALL, "ffn_dim": 64, "num_attention_heads": 4, "word_embed_proj_dim": 32}),
    "gpt-oss": ("GptOssConfig", {**_SMALL, **_HEADS, "num_local_experts": 4, "sliding_window": 12}),
    "mixtral": ("MixtralConfig", {**_SMALL, **_HEADS, "num_local_experts": 4}),
    "smollm3": ("SmolLM3Config", {**_SMALL, **_HEADS, "pad_token_id": 0}),
}
#: Families whose state is more than keys and values.
STATEFUL: dict[str, tuple[str, dict[str, object]]] = {
    "mamba": ("MambaConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
    "lfm2": (
        "Lfm2Config",
        {
            **_SMALL,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "intermediate_size": 64,
            "layer_types": ["conv", "full_attention", "conv"],
        },
    ),
    "bloom": ("BloomConfig", {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 4}),
}


def tiny_model(family: str, seed: int = 0) -> PreTrainedModel:
    """A model of a family with weights large enough that answers are varied."""
    name, arguments = (FAMILIES | STATEFUL)[family]
    torch.manual_seed(seed)
    config = getattr(transformers, name)(**arguments, bos_token_id=None, eos_token_id=None)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4.0)
    return model


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """A token for each byte, and the control tokens of ChatML."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={sign: number for number, sign in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def letter_tokenizer() -> PreTrainedTokenizerBase:
    """A token for each of as many characters as the models have tokens, so that text shows every token."""
    signs = [chr(code) for code in (10, *range(32, 127), *range(0x4E00, 0x4E00 + VOCABULARY))][: VOCABULARY - 2]
    core = Tokenizer(models.WordLevel({sign: number for number, sign in enumerate(signs)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    core.decoder = decoders.Fuse()
    core.add_special_tokens([AddedToken("<|im_start|>", special=True), AddedToken("<|im_end|>", special=True)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


def as_loaded(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    eos_token_ids: Sequence[int] = (),
    context_tokens: int = 400,
) -> LoadedModel:
    """A model as ``loading.load`` returns it."""
    return LoadedModel(
        model=model,
        tokenizer=tokenizer,
        device=torch.device("cpu"),
        dtype=model.dtype,
        eos_token_ids=frozenset(eos_token_ids),
        context_tokens=context_tokens,
        name="test",
    )


def request(name: str, text: str, system: str = "", **sampling: object) -> ChatRequest:
    """A request of one turn; greedy unless told otherwise."""
    turns = ([Message("system", system)] if system else []) + [Message("user", text)]
    settings: dict[str, object] = {"temperature": 0.0, "max_new_tokens": 12, **sampling}
    return ChatRequest(name, tuple(turns), Sampling(**settings))  # type: ignore[arg-type]  # checked at run time


def prompt_of(chat: ChatRequest, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Token ids of a request's prompt."""
    return fit(chat.messages, tokenizer, 100_000).token_ids


def generated(model: PreTrainedModel, prompt: list[int], count: int, eos: Sequence[int] = ()) -> list[int]:
    """What ``generate`` answers to a prompt alone, greedily, without the token that ends it."""
    given = torch.tensor([prompt])
    ended = {"eos_token_id": list(eos)} if eos else {}
    output = model.generate(
        given, attention_mask=torch.ones_like(given), max_new_tokens=count, do_sample=False, pad_token_id=0, **ended
    )
    return [token for token in output[0, len(prompt) :].tolist() if token not in eos]


class Transcript:
    """What an engine has said, by request."""

    def __init__(self) -> None:
        self.text: dict[str, str] = {}
        self.ends: dict[str, Finished | Failed] = {}

    def take(self, events: Sequence[EngineEvent]) -> None:
        """Note events; nothing may follow an end."""
        for event in events:
            assert event.request_id not in self.ends, "an event after the end"
            if isinstance(event, Delta):
                self.text[event.request_id] = self.text.get(event.request_id, "") + event.text
            else:
                self.ends[event.request_id] = event
                self.text.setdefault(event.request_id, "")


def drain(engine: ChatEngine, before: Callable[[int], None] = lambda step: None) -> Transcript:
    """Step until nothing is in flight; ``before`` is told the number of each step."""
    transcript = Transcript()
    for step in range(10_000):
        before(step)
        if not engine.busy:
            return transcript
        transcript.take(engine.step())
    raise AssertionError("the engine does not come to an end")


def new_engine(tokenizer: PreTrainedTokenizerBase, eos: tuple[int, ...] = (), **config: int) -> ChatEngine:
    """An engine on the tiny Llama with six rows."""
    settings = {"prefill_chunk_tokens": 32, "slots": 6, **config}
    return ChatEngine(as_loaded(tiny_model("llama"), tokenizer, eos), ChatConfig(**settings))  # type: ignore[arg-type]


def answer(
    reference: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, chat: ChatRequest, eos: tuple[int, ...] = ()
) -> str:
    """The text that ``generate`` answers alone, greedily."""
    tokens = generated(reference, prompt_of(chat, tokenizer), chat.sampling.max_new_tokens, eos)
    return tokenizer.decode(tokens, skip_special_tokens=True)


def drain_one(engine: ChatEngine, chat: ChatRequest) -> tuple[Finished, str]:
    """Run one request to its end and text."""
    engine.submit(chat)
    said = drain(engine)
    end = said.ends[chat.request_id]
    assert isinstance(end, Finished), end
    return end, said.text[chat.request_id]
