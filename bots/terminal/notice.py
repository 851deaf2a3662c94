"""Progress on standard error: a line that changes on a terminal, one line a change elsewhere."""

from __future__ import annotations

import sys

_CLEAR_LINE = "\r\x1b[K"


class Notice:
    """Tells what is being waited for; as a context manager it cleans up after itself."""

    def __init__(self) -> None:
        self._changing = sys.stderr.isatty()
        self._last = ""

    def __enter__(self) -> Notice:
        return self

    def __exit__(self, *_: object) -> None:
        if self._changing and self._last:
            sys.stderr.write(_CLEAR_LINE)
            sys.stderr.flush()

    def say(self, text: str) -> None:
        """Show this from now on."""
        if text == self._last:
            return
        self._last = text
        sys.stderr.write(f"{_CLEAR_LINE}{text} ..." if self._changing else f"palaver: {text}\n")
        sys.stderr.flush()
