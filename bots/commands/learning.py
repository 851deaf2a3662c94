"""``palaver knowledge drafts`` and ``report``: what people have answered, to decide on, and what goes unanswered."""

from __future__ import annotations

import asyncio
import json

import click

from bots import log, settings
from bots.connection import client_of
from bots.handover.learning import Learning
from bots.handover.opening import LateStore
from bots.settings import Settings
from bots.terminal.session import local_user
from bots.terminal.stack import running_stack

_TENANT = click.option("--tenant", default="terminal", show_default=True, help="Whose.")
_JSON = click.option("--json", "as_json", is_flag=True, help="Write one JSON object a line.")


@click.command("drafts")
@_TENANT
@_JSON
@click.option("--approve", metavar="DRAFT", help="Have it known from now on.")
@click.option("--reject", metavar="DRAFT", help="Forget it.")
@click.option("--answer", metavar="TEXT", help="With --approve: in these words instead.")
def drafts(tenant: str, as_json: bool, approve: str | None, reject: str | None, answer: str | None) -> None:
    """List what waits for a decision, or decide."""
    configured = settings.load()
    log.configure(configured.log_level)
    if approve or reject:
        with running_stack(configured, keep=False, kinds=("answer",)):
            click.echo(asyncio.run(_decide(configured, tenant, approve, reject, answer)))
        return
    for draft in LateStore(configured).open().drafts(tenant):
        if as_json:
            fields = {name: getattr(draft, name) for name in draft.__slots__}
            click.echo(json.dumps(fields, ensure_ascii=False))
        else:
            click.echo(f"{draft.draft_id}  said {draft.times} times\n  Q: {draft.question}\n  A: {draft.answer}")


@click.command("report")
@_TENANT
@_JSON
def report(tenant: str, as_json: bool) -> None:
    """List questions without an answer, and answers that did not help, the worst first."""
    configured = settings.load()
    log.configure(configured.log_level)
    for asked in LateStore(configured).open().report(tenant):
        if as_json:
            click.echo(json.dumps({name: getattr(asked, name) for name in asked.__slots__}, ensure_ascii=False))
        else:
            opinions = f"{asked.helpful} helpful, {asked.unhelpful} not"
            click.echo(f"{asked.decision:<13} {asked.score:.2f}  {opinions}  {' '.join(asked.question.split())}")


async def _decide(
    configured: Settings, tenant: str, approve: str | None, reject: str | None, answer: str | None
) -> str:
    async with client_of(configured) as client:
        learning = Learning(LateStore(configured), client)
        return await learning.decide(
            tenant, approve or reject or "", approved=bool(approve), by=local_user(), answer=answer
        )
