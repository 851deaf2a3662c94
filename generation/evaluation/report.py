"""Figures of one evaluation: what a person reads, and what the model card takes them from."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

VERSION = 1


@dataclass(frozen=True, slots=True)
class Figure:
    """One number.

    Args:
        name: What it is.
        group: Of which pictures.
        value: The number.
        note: What it is to be compared with.
    """

    name: str
    group: str
    value: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """One evaluation.

    Args:
        command: That gives these figures.
        settings: What it ran with, for people.
        step: How far the denoiser was trained.
        figures: All of them.
        version: Of this record.
    """

    command: str
    settings: str
    step: int
    figures: tuple[Figure, ...]
    version: int = VERSION

    def write(self, path: Path) -> None:
        """Write as JSON, whole or not at all."""
        partial = path.with_suffix(".partial")
        partial.write_text(json.dumps(asdict(self), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
        partial.replace(path)

    def table(self) -> str:
        """All figures as lines of text."""
        names = max(len(figure.name) for figure in self.figures)
        groups = max(len(figure.group) for figure in self.figures)
        return "\n".join(
            f"{figure.name:{names}}  {figure.group:{groups}}  {figure.value:8.3f}  {figure.note}"
            for figure in self.figures
        )
