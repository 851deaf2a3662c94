"""How a chat engine is configured: the plain JSON options of a worker, checked once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from generation.data_dir import default_data_dir
from generation.errors import ModelError


@dataclass(frozen=True, slots=True)
class ChatConfig:
    """Which chat model an engine runs, and how.

    Args:
        backend: ``transformers`` runs the model in this process; ``openai`` forwards to a server with that API.
        model: Catalogue name, hub id (``org/name`` or ``org/name@revision``) or directory; for ``openai`` the
            server's name of the model.
        data_dir: Where models are kept (under ``models/``).
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` takes bf16 only where the device computes in it.
        quantization: ``auto`` lays weights out anew where that is measured to help without harming answers; ``none``
            leaves them as they are loaded.
        slots: Most answers in flight, at most 1,024; 0 derives it from free memory.
        context_tokens: Longest prompt plus answer; 0 takes the model's own, within memory.
        prefill_chunk_tokens: Prompt tokens that one step may add, at least 16.
        prefix_cache_tokens: Tokens of finished prompts whose keys and values are kept; 0 switches it off.
        memory_share: Share of the device's free memory this engine may take, in (0, 1].
        threads: CPU threads; 0 takes the number of physical cores this process may use.
        adapters_url: SQLAlchemy URL of the store of tenants' adapters; a file in the data directory by default.
        adapter_memory_bytes: Most memory of adapters that are kept loaded; 0 switches adapters off.
        allow_pickle: Whether weights other than safetensors may be loaded. Unpickling runs code: trusted files only.
        text_watermark_key: Sampled answers carry a statistical mark that depends on it; empty for none.
        api_base_url: Of the ``openai`` backend, for example ``http://localhost:8000/v1``.
        api_key: Of the ``openai`` backend; never logged.
        api_timeout_s: Longest silence of the ``openai`` server before an answer counts as broken.
    """

    backend: Literal["transformers", "openai"] = "transformers"
    model: Annotated[str, Field(min_length=1)] = "smollm2-135m-instruct"
    data_dir: Path = field(default_factory=default_data_dir)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["auto", "none"] = "auto"
    slots: Annotated[int, Field(ge=0, le=1024)] = 0
    context_tokens: Annotated[int, Field(ge=0)] = 0
    prefill_chunk_tokens: Annotated[int, Field(ge=16)] = 256
    prefix_cache_tokens: Annotated[int, Field(ge=0)] = 16_384
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    threads: Annotated[int, Field(ge=0)] = 0
    adapters_url: str | None = field(default=None, repr=False)
    adapter_memory_bytes: Annotated[int, Field(ge=0)] = 256 * 2**20
    allow_pickle: bool = False
    text_watermark_key: str | None = field(default=None, repr=False)
    api_base_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    api_timeout_s: Annotated[float, Field(gt=0)] = 120.0

    @classmethod
    def from_options(cls, options: dict[str, object]) -> ChatConfig:
        """Read the options of a worker.

        Args:
            options: Field names of this class and their values, as JSON has them; absent ones take their default.

        Raises:
            ModelError: A key is unknown or a value is wrong; the message names the key, never the value.
        """
        known = [option.name for option in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ModelError(f"Unknown option of the chat model: {', '.join(unknown)}. Known are {', '.join(known)}.")
        try:
            return _ADAPTER.validate_json(json.dumps(options, default=str), strict=True)
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)
            told = "; ".join(f"{fault['loc'][0]}: {fault['msg'].lower()}" for fault in faults)
            raise ModelError(f"Wrong option of the chat model: {told}.") from None


_ADAPTER = TypeAdapter(ChatConfig)
