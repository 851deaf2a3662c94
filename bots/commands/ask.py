"""``palaver ask``: a question to what a tenant knows, answered with its sources."""

from __future__ import annotations

import asyncio

import click

from bots import answers, log, settings
from bots.settings import Settings
from bots.terminal.asking import answer_from_knowledge
from bots.terminal.session import Asker, Session, local_user
from bots.terminal.stack import running_stack
from workers.contract import ChatOptions


@click.command("ask")
@click.argument("question", nargs=-1, required=True)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object: decision, text, citations, suggestions.")
@click.option("--conversation", metavar="NAME", help="Go on with an earlier conversation, or begin one of this name.")
@click.option("--tenant", default="terminal", show_default=True, help="Whose knowledge, and on whose account.")
@click.option("--keep", is_flag=True, help="Leave server and worker running for the next call.")
def command(question: tuple[str, ...], as_json: bool, conversation: str | None, tenant: str, keep: bool) -> None:
    """Answer a QUESTION from the documents that `palaver knowledge add` has been given.

    The answer quotes them and says where: it is one of answer, ask (for what an answer needs), did_you_mean and
    unknown.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    asker = Asker(tenant, local_user())
    with running_stack(configured, keep, ("answer",)), asyncio.Runner() as runner:
        runner.run(_ask(configured, asker, " ".join(question), conversation, as_json))


async def _ask(configured: Settings, asker: Asker, text: str, conversation: str | None, as_json: bool) -> None:
    async with Session(configured, asker, ChatOptions()) as session:
        if conversation is not None:
            session.conversation = conversation
        answer = await session.ask(text, change=answers.answering)
        await answer_from_knowledge(session, answer, as_json)
