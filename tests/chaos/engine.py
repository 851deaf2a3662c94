"""The deterministic engine of ``tests.engines``, which runs out of memory when a file says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from generation.types import EngineEvent
from tests import engines

#: More than any machine has.
_TOO_MANY_BYTES = 2**62


class ForgetfulEngine(engines.WordEngine):
    """Takes more memory than there is in the first step in which it finds a file, and removes the file.

    Args:
        order: That file; whichever engine is first to see it obeys.
        step_s: See ``WordEngine``.
        capacity: Likewise.
    """

    def __init__(self, order: Path, step_s: float, capacity: int) -> None:
        super().__init__(step_s, capacity)
        self._order = order

    def step(self) -> list[EngineEvent]:
        if self._order.exists():
            self._order.unlink(missing_ok=True)
            bytearray(_TOO_MANY_BYTES)
        return super().step()


def build(options: dict[str, object], progress: Callable[[str, float | None], None]) -> ForgetfulEngine:
    """The factory: ``tests.chaos.engine:build``."""
    progress("loading words", 0.5)
    return ForgetfulEngine(
        Path(str(options["out_of_memory_file"])), float(str(options["step_s"])), int(str(options["capacity"]))
    )
