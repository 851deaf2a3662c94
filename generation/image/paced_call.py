"""A long call that goes on a step at a time: for code that drives its own loop and reports from within."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class StoppedError(Exception):
    """Raised inside the call when it is to end."""


class PacedCall(Generic[Result]):
    """Runs a function in a thread of its own that waits at every report until it may go on.

    Args:
        function: Called with what it has to call between two of its steps.
    """

    def __init__(self, function: Callable[[Callable[[], None]], Result]) -> None:
        self._function = function
        self._may_go, self._has_stopped = threading.Semaphore(0), threading.Semaphore(0)
        self._stopping = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="palaver-pipeline", daemon=True)
        self._done = False
        self._thread.start()

    def advance(self) -> bool:
        """Let the call go on to its next report, or to its end.

        Returns:
            Whether it has ended.

        Raises:
            Exception: What the function raised.
        """
        if not self._done:
            self._may_go.release()
            self._has_stopped.acquire()
        if self._error is not None:
            raise self._error
        return self._done

    @property
    def result(self) -> Result:
        """What the function returned, once it has ended."""
        assert self._result is not None  # noqa: S101 - asked for after ``advance`` has said so
        return self._result

    def stop(self) -> None:
        """End the call at its next report, and wait for that."""
        self._stopping = True
        self._may_go.release()
        self._thread.join()

    def _pause(self) -> None:
        self._has_stopped.release()
        self._may_go.acquire()
        if self._stopping:
            raise StoppedError

    def _run(self) -> None:
        self._may_go.acquire()
        try:
            if not self._stopping:
                self._result = self._function(self._pause)
        except StoppedError:
            pass
        except BaseException as error:  # noqa: BLE001 - it is raised again where the call is driven
            self._error = error
        self._done = True
        self._has_stopped.release()
