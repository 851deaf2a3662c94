"""``python -m generation.chat.convert model.gguf directory``: a GGUF file becomes a directory that loads in seconds.

transformers dequantises GGUF each time it loads one, which takes longer than anything else at start. The weights are
kept in float32, in which 4-bit weights with their 16-bit scales are exact.
"""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import gguf
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def convert(source: Path, directory: Path) -> None:
    """Write a GGUF model as safetensors with its tokenizer.

    Args:
        source: The model file.
        directory: Where to write; created if absent.
    """
    _read_once()
    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    _restore_pre_tokenizer(source, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    _forget_quantization(model)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def _read_once() -> None:
    """Halve the time: transformers parses the file anew for tokenizer, configuration and weights, all in Python.

    Both are looked up in their module at each use, so this process shares one reader and one table of names.
    """
    vars(gguf)["GGUFReader"] = functools.cache(gguf.GGUFReader)
    vars(gguf)["get_tensor_name_map"] = functools.cache(gguf.get_tensor_name_map)


def _restore_pre_tokenizer(source: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Give SmolLM's tokenizer its digit rule back, which transformers does not read from GGUF.

    Source: the ``tokenizer.json`` of SmolLM2 has ``Digits(individual_digits)`` before ``ByteLevel``; so has
    llama.cpp for the pre-tokenizer named ``smollm``.
    """
    name = gguf.GGUFReader(str(source)).get_field("tokenizer.ggml.pre")
    if name is not None and name.contents() == "smollm":
        digits = pre_tokenizers.Digits(individual_digits=True)
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])


def _forget_quantization(model: PreTrainedModel) -> None:
    """Make a dequantised model save as the plain one it is; transformers 5 still believes it is GGUF."""
    for attribute in ("hf_quantizer", "_weight_conversions"):  # no public way tells save_pretrained
        setattr(model, attribute, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m generation.chat.convert", description=__doc__)
    parser.add_argument("source", type=Path, help="the model file")
    parser.add_argument("directory", type=Path, help="where to write safetensors and tokenizer")
    options = parser.parse_args(arguments)
    convert(options.source, options.directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
