"""What Ctrl-C means while an answer is being written."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bots.terminal.answer import Answer
from bots.terminal.drawing import Drawing
from bots.terminal.session import Session

#: How long a stopped answer may take to say that it has ended.
_STOP_DEADLINE_S = 10.0


@asynccontextmanager
async def stopped_by_interrupt(session: Session, answer: Answer | Drawing) -> AsyncIterator[asyncio.Event]:
    """While this lasts, Ctrl-C stops the answer; a second one, or a stop that is not heeded, ends the waiting for it.

    Yields:
        Set once Ctrl-C was pressed.

    Raises:
        KeyboardInterrupt: The waiting was given up.
    """
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    interrupted = asyncio.Event()
    stopping: list[asyncio.Task[object]] = []
    deadline: list[asyncio.TimerHandle] = []

    def interrupt() -> None:
        if task is None:
            return
        if interrupted.is_set():
            task.cancel()
            return
        interrupted.set()
        stopping.append(loop.create_task(session.stop(answer)))
        deadline.append(loop.call_later(_STOP_DEADLINE_S, task.cancel))

    loop.add_signal_handler(signal.SIGINT, interrupt)
    try:
        yield interrupted
        await asyncio.gather(*stopping)
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        for timer in deadline:
            timer.cancel()
        loop.remove_signal_handler(signal.SIGINT)
