"""Tiny randomly initialised guard models of each family's architecture, whose answers begin with the family's words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from generation.moderation.guard_families import GuardFamily

VOCABULARY = 700
_SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 8_192,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}
_CONTROL = (
    *("<|im_start|>", "<|im_end|>", "<|begin_of_text|>", "<|header_start|>", "<|header_end|>", "<|eot|>"),
    *("<bos>", "<start_of_turn>", "<end_of_turn>", "<|start_of_role|>", "<|end_of_role|>", "<|end_of_text|>"),
)
#: How strongly the words that decide are preferred to all others.
_PREFERRED = 40.0


def guard_tokenizer(family: GuardFamily) -> PreTrainedTokenizerBase:
    """Byte pairs learnt from the family's own prompt and words."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - len(_CONTROL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
        max_token_length=16,
    )
    core.train_from_iterator([family.template, *(list(family.labels) * 50)], trainer)
    core.add_special_tokens([AddedToken(name, special=True) for name in _CONTROL])
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|im_end|>")


def _config(family: GuardFamily) -> Any:
    if family.name == "llama-guard":  # Llama 4 without experts, with eyes that are not used here
        text = {
            **_SMALL,
            "intermediate_size_mlp": 64,
            "moe_layers": [],
            "num_local_experts": 1,
            "attention_chunk_size": 4_096,
        }
        vision = {
            "hidden_size": 32,
            "intermediate_size": 128,
            "num_hidden_layers": 1,
            "num_attention_heads": 4,
            "image_size": 28,
            "patch_size": 14,
            "vision_output_dim": 32,
            "projector_input_dim": 32,
            "projector_output_dim": 32,
        }
        return transformers.Llama4Config(text_config=text, vision_config=vision)
    if family.name == "shieldgemma":
        return transformers.Gemma2Config(**_SMALL, sliding_window=64, query_pre_attn_scalar=8)
    if family.name == "granite-guardian":
        return transformers.GraniteConfig(**{name: value for name, value in _SMALL.items() if name != "head_dim"})
    return transformers.Qwen3Config(**_SMALL)


def save_guard(family: GuardFamily, folder: Path, seed: int = 0) -> None:
    """Write a model and its tokenizer as the hub has them; the tokenizer brings no chat template."""
    tokenizer = guard_tokenizer(family)
    torch.manual_seed(seed)
    config = _config(family)
    several = family.name == "llama-guard"
    model = (
        transformers.Llama4ForConditionalGeneration(config)
        if several
        else transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    )
    head = model.get_output_embeddings()
    words = [tokenizer.encode(word, add_special_tokens=False)[0] for word in family.labels]
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(1.5 if several else 4.0)
        head.weight[words] *= _PREFERRED
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
