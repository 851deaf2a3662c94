"""A tour for who has just installed this: several tenants at once, fair shares, a stop that is felt at once."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.columns import Columns
from rich.console import Console, ConsoleRenderable
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bots.overview import holds_slot
from bots.settings import Settings
from bots.terminal.answer import Answer, AnswerError, printable
from bots.terminal.session import Asker, Session, local_user
from workers import redis_connection
from workers.contract import ChatOptions
from workers.errors import WorkersError

#: Who asks what, while the busy tenant's backlog waits.
QUESTIONS = (
    ("birch-guild", "Explain in two sentences why the sky is blue."),
    ("birch-guild", "Name three uses of copper."),
    ("cedar-guild", "Write a short greeting for a new member of a chess club."),
    ("oak-workspace", "What is the capital of France, and what is it known for?"),
)
#: More than the embedded model answers at once on a usual machine, so that a queue forms; within a tenant's burst.
_BACKLOG = 56
_BACKLOG_QUESTION = "Say something nice about number {number}."
_BACKLOG_OPTIONS = ChatOptions(max_new_tokens=12, temperature=0.7)
_LONG_QUESTION = "Tell me a long story about a lighthouse keeper and the sea."
_OPTIONS = ChatOptions(max_new_tokens=80, temperature=0.3, repetition_penalty=1.1)
_LONG_OPTIONS = ChatOptions(max_new_tokens=1_000, temperature=0.7, repetition_penalty=1.1)
_PANEL_COLUMNS = 38
_PANEL_LINES = 10
_REFRESH_HZ = 8
_WRITTEN_BEFORE_STOP = 60
_FREED_DEADLINE_S = 15.0
_POLL_S = 0.02


class DemoError(WorkersError):
    """Something did not work as it must."""

    code = "demo_failed"


@dataclass(frozen=True, slots=True)
class Cancelled:
    """What the cancel showed.

    Attributes:
        stopped_s: Seconds from the stop to the terminal event.
        freed_s: Seconds from the stop until the job held no slot any more.
        characters: How much had been written.
    """

    stopped_s: float
    freed_s: float
    characters: int


async def tour(settings: Settings, console: Console) -> None:
    """Run the demo against a queue that has a worker.

    Args:
        settings: Where the queue is.
        console: Where to show; off a terminal, as plain lines.

    Raises:
        DemoError: Something did not work as it must.
        AnswerError: A question was not answered.
    """
    async with Session(settings, Asker("oak-workspace", local_user()), _OPTIONS) as first:
        # A name of its own for each run: rate limits belong to the tenant.
        busy = f"busy-guild-{secrets.token_hex(3)}"
        console.print(f"\nOne tenant asks {_BACKLOG} questions; then three others ask {len(QUESTIONS)}:", markup=False)
        backlog = await _fill(first, busy)
        sessions = [first.beside(Asker(tenant, local_user())) for tenant, _ in QUESTIONS]
        begun_s = time.monotonic()
        answers = [await session.ask(text) for session, (_, text) in zip(sessions, QUESTIONS, strict=True)]
        await _follow_all(sessions, answers, console)
        _check(answers)
        await asyncio.gather(*(_follow(*pair) for pair in backlog))
        took_s = time.monotonic() - begun_s
        _check([answer for _, answer in backlog])
        console.print("\nA long answer, stopped in the middle:", markup=False)
        cancelled = await _cancel(settings, sessions[0])
        _print_summary(answers, [answer for _, answer in backlog], took_s, cancelled, console)


async def _fill(first: Session, tenant: str) -> list[tuple[Session, Answer]]:
    """Queue the busy tenant's questions, each of another user."""
    backlog = []
    for number in range(_BACKLOG):
        session = first.beside(Asker(tenant, f"user-{number}"))
        backlog.append((session, await session.ask(_BACKLOG_QUESTION.format(number=number), _BACKLOG_OPTIONS)))
    return backlog


async def _follow_all(sessions: Sequence[Session], answers: Sequence[Answer], console: Console) -> None:
    if console.is_terminal:
        with Live(console=console, refresh_per_second=_REFRESH_HZ, get_renderable=lambda: _side_by_side(answers)):
            await asyncio.gather(*(_follow(*pair) for pair in zip(sessions, answers, strict=True)))
        return
    tell = _plain_teller(console)
    pairs = enumerate(zip(sessions, answers, strict=True))
    await asyncio.gather(*(_follow(*pair, partial(tell, number, pair[1])) for number, pair in pairs))


async def _follow(session: Session, answer: Answer, changed: Callable[[], None] | None = None) -> None:
    async for _ in session.follow(answer):
        if changed is not None:
            changed()


def _plain_teller(console: Console) -> Callable[[int, Answer], None]:
    """One line for each thing that happens to an answer; the text once it is complete."""
    told: dict[int, str] = {}

    def tell(number: int, answer: Answer) -> None:
        status = answer.status()
        if status == told.get(number):
            return
        told[number] = status
        tenant = QUESTIONS[number][0]
        _line(console, f"  {tenant}, question {number + 1}: {status}")
        if answer.event and answer.text:
            _line(console, "    " + " ".join(printable(answer.text).split()))

    return tell


def _line(console: Console, text: str) -> None:
    """One line as it is: neither wrapped nor coloured."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def _side_by_side(answers: Sequence[Answer]) -> ConsoleRenderable:
    panels = []
    for (tenant, question), answer in zip(QUESTIONS, answers, strict=True):
        body = Text(question + "\n\n", style="bold")
        body.append(printable(answer.text), style="not bold")
        lines = body.wrap(Console(width=_PANEL_COLUMNS - 4), _PANEL_COLUMNS - 4)
        shown = Text("\n").join(lines[-_PANEL_LINES:])
        panels.append(
            Panel(shown, title=tenant, subtitle=_brief(answer), width=_PANEL_COLUMNS, height=_PANEL_LINES + 2)
        )
    return Columns(panels)


def _brief(answer: Answer) -> str:
    """What fits under a panel."""
    if answer.event is None or answer.event.type != "finished":
        return answer.status()
    return (
        f"{answer.usage.completion_tokens} tokens, {answer.tokens_per_s:.1f}/s, first {answer.first_text_s or 0:.1f} s"
    )


def _check(answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer.event is None or answer.event.type != "finished":
            raise AnswerError(answer.event) if answer.event else DemoError(f"The job {answer.job_id} has no end.")
        if not answer.text.strip():
            raise DemoError(f"The answer of job {answer.job_id} is empty.")


async def _cancel(settings: Settings, session: Session) -> Cancelled:
    """Stop a long answer in the middle and measure how long that takes."""
    answer = await session.ask(_LONG_QUESTION, _LONG_OPTIONS)
    stopped_at_s = 0.0
    stop: asyncio.Task[object] | None = None
    async for _ in session.follow(answer):
        if stop is None and len(answer.text) >= _WRITTEN_BEFORE_STOP:
            stopped_at_s = time.monotonic()
            stop = asyncio.create_task(session.stop(answer))
    ended_at_s = time.monotonic()
    if stop is None or answer.event is None or answer.event.type != "cancelled":
        raise DemoError("A running answer could not be stopped: it came to its end.")
    await stop
    with redis_connection.connect(settings.redis, settings.data_dir) as client:
        while await asyncio.to_thread(holds_slot, client, "chat", answer.job_id):
            if time.monotonic() - stopped_at_s > _FREED_DEADLINE_S:
                raise DemoError("A stopped answer did not give its slot back.")
            await asyncio.sleep(_POLL_S)
    return Cancelled(ended_at_s - stopped_at_s, time.monotonic() - stopped_at_s, len(answer.text))


def _print_summary(
    answers: Sequence[Answer], backlog: Sequence[Answer], took_s: float, cancelled: Cancelled, console: Console
) -> None:
    _line(
        console,
        f"  stopped after {cancelled.characters} characters: {cancelled.stopped_s * 1000:.0f} ms from the stop to the "
        f"end, its slot free after {cancelled.freed_s * 1000:.0f} ms\n",
    )
    table = Table("tenant", "waited", "first token", "tokens", "tokens/s", "in all")
    for (tenant, _), answer in zip(QUESTIONS, answers, strict=True):
        usage = answer.usage
        table.add_row(
            tenant,
            f"{usage.queued_s:.1f} s",
            f"{answer.first_text_s or 0:.1f} s",
            str(usage.completion_tokens),
            f"{answer.tokens_per_s:.1f}",
            f"{usage.queued_s + usage.duration_s:.1f} s",
        )
    console.print(table)
    waited_s, others_s = (max(answer.usage.queued_s for answer in group) for group in (backlog, answers))
    tokens = sum(answer.usage.completion_tokens for answer in [*answers, *backlog])
    _line(console, f"The busy tenant's questions waited up to {waited_s:.1f} s, the others' up to {others_s:.1f} s.")
    _line(console, f"{tokens} tokens for all of them in {took_s:.1f} s: {tokens / took_s:.1f} tokens/s.")
