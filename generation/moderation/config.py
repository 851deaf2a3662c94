"""How moderation is configured in an engine process: the plain JSON options of a worker, checked once."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from generation.data_dir import default_data_dir
from generation.errors import ModelError
from generation.moderation.presets import Strictness


@dataclass(frozen=True, slots=True)
class ModerationConfig:
    """Options of moderation.

    Args:
        strictness: What holds for tenants without a policy of their own.
        chat_judge: Whether the chat model judges Chinese texts, where ``text_model`` is no guard model.
        text_model: ``jigsaw-bilstm``, ``none``, or a guard model: hub id or directory.
        injection_model: ``nanoguard`` or ``none``.
        image_model: ``nsfwjs-mobilenet-v2``, ``none``, or the directory or hub id of a Stable Diffusion safety checker.
        record_url: SQLAlchemy URL of the record; empty for SQLite in the data directory, ``none`` for no record.
        secret: What users' names are hashed with and kept texts encrypted with; empty for a key in the data directory.
        data_dir: Where models and the record are kept.
        device: Of a guard model; see ``ChatConfig``.
        dtype: Likewise.
        threads: CPU threads; see ``ChatConfig``.
    """

    strictness: Strictness = "balanced"
    chat_judge: bool = False
    text_model: str = "jigsaw-bilstm"
    injection_model: Literal["nanoguard", "none"] = "nanoguard"
    image_model: str = "nsfwjs-mobilenet-v2"
    record_url: str = ""
    secret: str = field(default="", repr=False)
    data_dir: Path = field(default_factory=default_data_dir)
    device: str = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    threads: int = 0

    @property
    def has_guard(self) -> bool:
        """Whether texts are judged by a guard model."""
        return self.text_model not in ("jigsaw-bilstm", "none")

    @classmethod
    def from_options(cls, options: dict[str, object]) -> ModerationConfig:
        """Read the options of a worker.

        Raises:
            ModelError: A key is unknown or a value is wrong; the message names the key, never the value.
        """
        unknown = sorted(set(options) - {option.name for option in fields(cls)})
        if unknown:
            raise ModelError(f"Unknown option of moderation: {', '.join(unknown)}.")
        try:
            return _ADAPTER.validate_python({name: value for name, value in options.items() if value is not None})
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)
            told = "; ".join(f"{fault['loc'][0]}: {fault['msg'].lower()}" for fault in faults)
            raise ModelError(f"Wrong option of moderation: {told}.") from None


_ADAPTER = TypeAdapter(ModerationConfig)
