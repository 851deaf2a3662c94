"""``python -m generation.provenance.text_check``: whether a text was sampled here.

A process of its own, for it needs torch. Reads one line of JSON from standard input (``model``, ``data_dir``, ``key``,
``text``) and writes one to standard output (``score``, ``found``, ``tokens``, or ``error``).
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from generation import catalog
from generation.errors import GenerationError, ModelNotFoundError


def check(order: dict[str, str]) -> dict[str, object]:
    """What is to be answered.

    Raises:
        GenerationError: The model's tokenizer cannot be had.
    """
    from transformers import AutoTokenizer  # seconds to import

    from generation.provenance.text_watermark import TextWatermark

    location = catalog.resolve(order["model"], Path(order["data_dir"]))
    if location.directory is None:
        raise ModelNotFoundError(f"Model {location.name} is not here. Run: palaver models pull {location.name}")
    tokenizer = AutoTokenizer.from_pretrained(location.directory)
    token_ids = tokenizer.encode(order["text"], add_special_tokens=False)
    return dataclasses.asdict(TextWatermark(order["key"]).detect(token_ids))


def main() -> None:
    """Entry point of the process."""
    try:
        told = check(json.load(sys.stdin))
    except GenerationError as error:
        told = {"error": str(error)}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
