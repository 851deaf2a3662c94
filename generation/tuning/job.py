"""What a training process is told; free of heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from generation.tuning.examples import Example


@dataclass(frozen=True, slots=True)
class Job:
    """What is to be done.

    Args:
        tenant: Whose adapter.
        model: Of the catalogue, the hub, or a directory.
        data_dir: The product's data directory.
        url: Of the store of adapters.
        device: Where.
        dtype: In which numbers; ``auto`` is float32 on a CPU.
        threads: CPU threads; 0 for the physical cores.
        examples: The set, masked.
        recipe: Fields of ``Recipe``.
        again: Whether to train although nothing has changed.
    """

    tenant: str
    model: str
    data_dir: Path
    url: str
    device: str
    dtype: str
    threads: int
    examples: tuple[Example, ...]
    recipe: dict[str, Any]
    again: bool = False

    def to_json(self) -> str:
        """For the process's standard input."""
        return _JOB.dump_json(self).decode()

    @classmethod
    def from_json(cls, told: bytes) -> Job:
        """Read it there."""
        return _JOB.validate_json(told)


_JOB: TypeAdapter[Job] = TypeAdapter(Job)
