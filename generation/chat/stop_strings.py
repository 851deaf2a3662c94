"""Stop strings in text that arrives in pieces: they end the answer and no part of them is ever shown."""

from __future__ import annotations


class StopFilter:
    """Holds back what may be the beginning of a stop string.

    Args:
        stop: Strings that end the answer.
    """

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = stop
        self._pending = ""
        self.stopped = False

    def add(self, piece: str) -> str:
        """Take a piece of text and return what is now certain to be shown; nothing follows once ``stopped``."""
        if not self._stop or self.stopped:
            return "" if self.stopped else piece
        text = self._pending + piece
        places = [place for stop in self._stop if (place := text.find(stop)) >= 0]
        if places:
            self.stopped, self._pending = True, ""
            return text[: min(places)]
        held = max(_begun(text, stop) for stop in self._stop)
        self._pending = text[len(text) - held :]
        return text[: len(text) - held]

    def flush(self) -> str:
        """What was held back, when no more text follows."""
        rest, self._pending = self._pending, ""
        return rest


def _begun(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    longest = min(len(text), len(stop) - 1)
    return next((length for length in range(longest, 0, -1) if text.endswith(stop[:length])), 0)
