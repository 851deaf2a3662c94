"""Loading a model of the hub, or of a directory, that reads texts for retrieval."""

from __future__ import annotations

from typing import Any

from generation.errors import ModelNotFoundError


def load_model(name: str, auto_class: str, what: str) -> tuple[Any, Any]:
    """A tokenizer and a model, ready to compute on the CPU.

    Args:
        name: Repository or directory.
        auto_class: transformers' class that loads it.
        what: Names the kind of model in errors.

    Raises:
        ModelNotFoundError: It is not there, or torch and transformers are not.
    """
    try:
        import transformers
        from transformers import AutoTokenizer

        loader = getattr(transformers, auto_class)
    except ImportError as error:
        raise ModelNotFoundError(f"{name} needs torch and transformers: pip install 'palaver[worker]'") from error
    try:
        return AutoTokenizer.from_pretrained(name), loader.from_pretrained(name, use_safetensors=True).eval()
    except (OSError, ValueError) as error:
        raise ModelNotFoundError(f"{name} is no {what} of the hub, of its local cache or of a directory.") from error
