"""An answer from knowledge at a terminal: what it says, and below it its sources."""

from __future__ import annotations

import json
import sys

import click

from bots import answers
from bots.terminal.answer import Answer, AnswerError, printable
from bots.terminal.interrupts import stopped_by_interrupt
from bots.terminal.session import Session


async def answer_from_knowledge(session: Session, answer: Answer, as_json: bool) -> None:
    """Write an answer to standard output once it is complete.

    Args:
        session: Who asks.
        answer: What was asked.
        as_json: Whether to write one JSON object instead of text.

    Raises:
        AnswerError: It ended without an answer.
        KeyboardInterrupt: Ctrl-C has stopped it.
    """
    async with stopped_by_interrupt(session, answer) as interrupted:
        async for _ in session.follow(answer):
            pass
    event = answer.event
    if event is not None and event.type in ("failed", "refused"):
        raise AnswerError(event)
    if interrupted.is_set() or event is None or event.type == "cancelled":
        raise KeyboardInterrupt
    report = event.answer
    if as_json:
        told = (
            report.model_dump() if report else {"decision": "unknown", "citations": [], "suggestions": [], "score": 0}
        )
        click.echo(json.dumps({"job_id": answer.job_id, "text": answer.text, **told}, ensure_ascii=False))
        return
    lines = [answer.text, *([""] if report and report.citations else []), *(answers.sources(report) if report else [])]
    text = "\n".join(lines)
    click.echo(printable(text) if sys.stdout.isatty() else text)
