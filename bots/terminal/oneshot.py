"""One question, one answer, for scripts: the answer alone on standard output, everything else on standard error."""

from __future__ import annotations

import json
import sys
from typing import TextIO

import click

from bots.terminal.answer import Answer, AnswerError, printable
from bots.terminal.interrupts import stopped_by_interrupt
from bots.terminal.session import Session


async def answer_once(session: Session, answer: Answer, as_json: bool) -> None:
    """Write one answer to standard output as it grows.

    Args:
        session: Who asks.
        answer: What was asked.
        as_json: Whether to write one JSON object a line instead of the text.

    Raises:
        AnswerError: It ended without an answer.
        KeyboardInterrupt: Ctrl-C has stopped it.
        BrokenPipeError: Nobody reads any more; the answer has been stopped.
    """
    write = _write_json if as_json else _write_text
    async with stopped_by_interrupt(session, answer) as interrupted:
        try:
            await write(session, answer, sys.stdout)
        except BrokenPipeError:
            await session.stop(answer)
            raise
    if answer.event and answer.event.type in ("failed", "refused"):
        raise AnswerError(answer.event)
    if interrupted.is_set() or (answer.event and answer.event.type == "cancelled"):
        raise KeyboardInterrupt


async def _write_text(session: Session, answer: Answer, out: TextIO) -> None:
    written = ""
    async for _ in session.follow(answer):
        text = printable(answer.text) if out.isatty() else answer.text
        if text.startswith(written):
            out.write(text[len(written) :])
            written = text
        elif not written.startswith(text):
            # It began anew and says something else: what is out cannot be taken back.
            click.echo("palaver: a worker died; the answer begins again.", err=True)
            out.write("\n\n" + text)
            written = text
        out.flush()
    if written and not written.endswith("\n"):
        out.write("\n")
        out.flush()


async def _write_json(session: Session, answer: Answer, out: TextIO) -> None:
    def put(kind: str, **fields: object) -> None:
        out.write(json.dumps({"type": kind, "job_id": answer.job_id, **fields}, ensure_ascii=False) + "\n")
        out.flush()

    put("submitted")
    told, restarts, position = 0, 0, None
    async for _ in session.follow(answer):
        if answer.queued and answer.queued != position:
            position = answer.queued
            put("queued", ahead=position.position, eta_s=position.eta_s)
        if answer.restarts != restarts:
            restarts, told = answer.restarts, 0
            put("restarted")
        if len(answer.text) > told:
            put("delta", text=answer.text[told:])
            told = len(answer.text)
    if answer.event:
        put(
            answer.event.type,
            text=answer.text,
            finish_reason=answer.event.finish_reason,
            usage=answer.usage.model_dump(),
            failure=answer.event.failure.model_dump() if answer.event.failure else None,
        )
