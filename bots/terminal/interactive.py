"""A conversation at a terminal: answers as Markdown while they grow, and a few commands."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markdown import Markdown
from rich.text import Text

from bots.terminal.answer import Answer, printable
from bots.terminal.interrupts import stopped_by_interrupt
from bots.terminal.session import Session
from generation.errors import GenerationError
from workers.contract import UsageReport
from workers.errors import WorkersError

_HISTORY_LINES = 1_000
_REFRESH_HZ = 12

HELP = """\
/new            forget this conversation and begin another
/persona TEXT   who the model is to be; without TEXT, what is configured
/usage          what this conversation and your day have taken
/help           this
Ctrl-C stops an answer, Ctrl-D leaves."""


class Interactive:
    """Reads questions and shows answers until the user leaves.

    Args:
        session: Who asks; lives on the runner's event loop.
        runner: Runs one question at a time; between them the terminal is the user's.
        console: Where to show.
    """

    def __init__(self, session: Session, runner: asyncio.Runner, console: Console) -> None:
        self._session = session
        self._runner = runner
        self._console = console
        self._answers: list[UsageReport] = []
        self._commands: dict[str, Callable[[str], Coroutine[Any, Any, None]]] = {
            "/new": self._new,
            "/persona": self._persona,
            "/usage": self._usage,
            "/help": self._help,
        }

    def run(self) -> None:
        """Talk until Ctrl-D; one failed question does not end the conversation."""
        self._console.print(
            "[dim]You talk to a machine, which can be wrong. /help shows the commands, Ctrl-D leaves.[/]"
        )
        while True:
            try:
                line = input("\n> ").strip()
            except EOFError:
                self._console.print()
                return
            except KeyboardInterrupt:
                continue
            if not line:
                continue
            try:
                self._runner.run(self._obey(line))
            except KeyboardInterrupt:
                self._console.print("[dim]interrupted[/]")
            except (WorkersError, GenerationError) as error:
                self._console.print(Text(str(error), style="red"))

    async def _obey(self, line: str) -> None:
        if not line.startswith("/"):
            await self._question(line)
            return
        name, _, rest = line.partition(" ")
        command = self._commands.get(name)
        if command is None:
            self._console.print(f"There is no command {name}.\n{HELP}", markup=False)
        else:
            await command(rest.strip())

    async def _question(self, text: str) -> None:
        answer = await self._session.ask(text)
        async with stopped_by_interrupt(self._session, answer):
            await show(self._session, answer, self._console)
        self._answers.append(answer.usage)

    async def _new(self, _: str) -> None:
        await self._session.start_anew()
        self._answers.clear()
        self._console.print("[dim]A new conversation.[/]")

    async def _persona(self, text: str) -> None:
        await self._session.set_persona(text or None)
        self._console.print("[dim]The persona is set.[/]" if text else "[dim]The configured persona.[/]")

    async def _usage(self, _: str) -> None:
        turns = len((await self._session.history()).turns)
        prompt = sum(usage.prompt_tokens for usage in self._answers)
        cached = sum(usage.cached_tokens for usage in self._answers)
        completion = sum(usage.completion_tokens for usage in self._answers)
        gpu_s = sum(usage.gpu_s for usage in self._answers)
        self._console.print(
            f"{turns} turns kept; {prompt} prompt tokens ({cached} from the cache), {completion} written, "
            f"{gpu_s:.1f} s of the device",
            markup=False,
            highlight=False,
        )
        today = (await self._session.usage()).user.day
        left = "" if today.budget_gpu_s is None else f", {today.left_gpu_s:.1f} s left"
        jobs, gpu_s = today.total.jobs, today.total.gpu_s
        self._console.print(f"today in all: {jobs} answers, {gpu_s:.1f} s{left}", markup=False, highlight=False)

    async def _help(self, _: str) -> None:
        self._console.print(HELP, markup=False)


async def show(session: Session, answer: Answer, console: Console) -> None:
    """Show one answer as Markdown while it grows, then how it ended.

    Finished paragraphs are printed for good, so that only the latest one is drawn again and an answer may be longer
    than the screen.
    """
    printed = 0
    with Live(console=console, refresh_per_second=_REFRESH_HZ, transient=True, vertical_overflow="ellipsis") as live:
        async for _ in session.follow(answer):
            text = printable(answer.text)
            if len(text) < printed:  # it began anew
                printed = 0
                live.console.print("[dim]A worker died; the answer begins again.[/]")
            done = finished_blocks(text)
            if done > printed:
                live.console.print(Markdown(text[printed:done]))
                printed = done
            status = Text(f"{answer.status()}; Ctrl-C stops", style="dim")
            rest = text[printed:]
            live.update(Group(Markdown(rest), status) if rest.strip() else status)
    rest = printable(answer.text)[printed:]
    if rest.strip():
        console.print(Markdown(rest))
    if answer.event and answer.event.failure:
        console.print(Text(answer.event.failure.message, style="red"))
    console.print(Text(answer.status(), style="dim"))


def finished_blocks(text: str) -> int:
    """How many characters at the start are whole paragraphs, lists and code blocks that will not change any more."""
    done, at, in_code = 0, 0, False
    for line in text.splitlines(keepends=True):
        at += len(line)
        if line.lstrip().startswith(("```", "~~~")):
            in_code = not in_code
        if not in_code and not line.strip() and line.endswith("\n"):
            done = at
    return done


def remember_lines(file: Path) -> None:
    """Let the arrow keys bring back earlier questions, those of earlier conversations included."""
    try:
        import readline
    except ImportError:  # a Python without it still reads lines
        return
    with contextlib.suppress(OSError):
        file.touch(mode=0o600, exist_ok=True)
        readline.read_history_file(file)
    readline.set_history_length(_HISTORY_LINES)
    atexit.register(_write_history, file)


def _write_history(file: Path) -> None:
    import readline

    with contextlib.suppress(OSError):
        readline.write_history_file(file)
