"""How an image engine is configured: the plain JSON options of a worker, checked once."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter, ValidationError

from generation.data_dir import default_data_dir
from generation.errors import ModelError

#: What settings and commands call the model that ships with the product.
EMBEDDED_MODEL = "palaver-icons"
#: Where it lies.
EMBEDDED_DIR = Path(__file__).resolve().parent / "embedded"


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """Which image model an engine runs, and how.

    Args:
        model: ``palaver-icons`` (the embedded model), catalogue name, hub id (``org/name`` or ``org/name@revision``)
            or a directory in diffusers' layout.
        data_dir: Where models are kept (under ``models/``) and packages are downloaded to.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: ``auto`` takes float32 for the embedded model, and for others bf16 only where the device computes in it.
        rows: Most pictures in one forward pass, at most 256; 0 derives it from device and free memory.
        memory_share: Share of the device's free memory this engine may take, in (0, 1].
        threads: CPU threads; 0 takes the number of physical cores this process may use.
        preview_px: Longer side of a preview, 32 to 1024 px.
        loras: LoRA files (safetensors), each ``path`` or ``path:scale``.
        allow_pickle: Whether weights other than safetensors may be loaded. Unpickling runs code: trusted files only.
    """

    model: Annotated[str, Field(min_length=1)] = EMBEDDED_MODEL
    data_dir: Path = field(default_factory=default_data_dir)
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    rows: Annotated[int, Field(ge=0, le=256)] = 0
    memory_share: Annotated[float, Field(gt=0, le=1)] = 0.8
    threads: Annotated[int, Field(ge=0)] = 0
    preview_px: Annotated[int, Field(ge=32, le=1024)] = 256
    loras: tuple[str, ...] = ()
    allow_pickle: bool = False

    @classmethod
    def from_options(cls, options: dict[str, object]) -> ImageConfig:
        """Read the options of a worker.

        Args:
            options: Field names of this class and their values, as JSON has them; absent ones take their default.

        Raises:
            ModelError: A key is unknown or a value is wrong; the message names the key, never the value.
        """
        known = [option.name for option in fields(cls)]
        unknown = sorted(set(options) - set(known))
        if unknown:
            raise ModelError(f"Unknown option of the image model: {', '.join(unknown)}. Known are {', '.join(known)}.")
        try:
            return _ADAPTER.validate_json(json.dumps(options, default=str), strict=True)
        except ValidationError as error:
            faults = error.errors(include_input=False, include_url=False)
            told = "; ".join(f"{fault['loc'][0]}: {fault['msg'].lower()}" for fault in faults)
            raise ModelError(f"Wrong option of the image model: {told}.") from None


_ADAPTER = TypeAdapter(ImageConfig)
