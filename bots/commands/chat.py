"""``palaver chat``: talk at the terminal, or answer one question of a script."""

from __future__ import annotations

import asyncio
import sys

import click

from bots import log, settings
from bots.settings import Settings
from bots.terminal.oneshot import answer_once
from bots.terminal.session import Asker, Session, local_user
from bots.terminal.stack import running_stack
from workers.contract import ChatOptions
from workers.errors import SettingsError


@click.command("chat")
@click.argument("question", nargs=-1)
@click.option("--persona", metavar="TEXT", help="Who the model is to be in this conversation.")
@click.option("--max-tokens", type=click.IntRange(1, 1_000_000), default=512, show_default=True, help="Longest answer.")
@click.option(
    "--temperature",
    type=click.FloatRange(0, 2),
    default=0.7,
    show_default=True,
    help="0 always takes the likeliest word.",
)
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Makes sampled answers repeatable.")
@click.option("--keep", is_flag=True, help="Leave server and worker running for the next call.")
@click.option("--tenant", default="terminal", show_default=True, help="On whose account: the unit of fair sharing.")
@click.option(
    "--json", "as_json", is_flag=True, help="Write one JSON object a line: submitted, queued, delta, finished..."
)
@click.option("--follow", "job_id", metavar="JOB", help="Show the answer of an earlier question instead of asking one.")
def command(
    question: tuple[str, ...],
    persona: str | None,
    max_tokens: int,
    temperature: float,
    seed: int | None,
    keep: bool,
    tenant: str,
    as_json: bool,
    job_id: str | None,
) -> None:
    """Talk to the model.

    With a QUESTION, or with text piped in, the answer goes to standard output and nothing else does; with both, the
    text follows the question. Without either, a conversation begins.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    text = _text(question) if job_id is None else ""
    if not text and job_id is None and as_json:
        raise SettingsError("--json needs a question, as an argument or piped in.")
    options = ChatOptions(max_new_tokens=max_tokens, temperature=temperature, seed=seed)
    asker = Asker(tenant, local_user())
    with running_stack(configured, keep), asyncio.Runner() as runner:
        if text or job_id is not None:
            runner.run(_answer(configured, asker, options, persona, text, job_id, as_json))
        else:
            converse(configured, asker, options, persona, runner)


async def _answer(
    configured: Settings,
    asker: Asker,
    options: ChatOptions,
    persona: str | None,
    text: str,
    job_id: str | None,
    as_json: bool,
) -> None:
    """Write one answer to standard output."""
    async with Session(configured, asker, options) as session:
        if persona is not None:
            await session.set_persona(persona)
        answer = session.again(job_id) if job_id is not None else await session.ask(text)
        await answer_once(session, answer, as_json)


def converse(
    configured: Settings, asker: Asker, options: ChatOptions, persona: str | None, runner: asyncio.Runner
) -> None:
    """Talk until the user leaves."""
    from rich.console import Console

    from bots.terminal.interactive import Interactive, remember_lines

    async def open_session() -> Session:
        session = Session(configured, asker, options)
        if persona is not None:
            await session.set_persona(persona)
        return session

    remember_lines(configured.data_dir / "chat_history")
    session = runner.run(open_session())
    try:
        Interactive(session, runner, Console(highlight=False)).run()
    finally:
        runner.run(session.close())


def _text(question: tuple[str, ...]) -> str:
    piped = "" if sys.stdin is None or sys.stdin.isatty() else sys.stdin.read()
    text = "\n\n".join(part for part in (" ".join(question).strip(), piped.strip()) if part)
    if not text and not sys.stdin.isatty():
        raise SettingsError("There is no question: give one as an argument or pipe it in.")
    return text
