"""``palaver demo``: start everything and show it at work."""

from __future__ import annotations

import asyncio
import sys

import click
from rich.console import Console

from bots import log, settings, up_wants
from bots.commands.chat import converse
from bots.terminal.demo import tour
from bots.terminal.gallery import exhibit
from bots.terminal.session import Asker, local_user
from bots.terminal.stack import running_stack
from workers.contract import ChatOptions


@click.command("demo")
def command() -> None:
    """Start everything, ask a few questions for several tenants at once, stop one, sum up, and draw a few pictures.

    On a terminal, a conversation begins afterwards.
    """
    configured = settings.load()
    log.configure(configured.log_level)
    console = Console()
    with running_stack(configured, keep=False), asyncio.Runner() as runner:
        runner.run(tour(configured, console))
        missing = up_wants.missing(configured, "image")
        if missing:
            console.print(f"\n{missing}", markup=False, highlight=False, soft_wrap=True)
        else:
            with running_stack(configured, keep=False, kinds=("image",)):
                runner.run(exhibit(configured, console))
        if sys.stdin.isatty() and console.is_terminal:
            console.print("\nNow it is your turn.")
            converse(configured, Asker("terminal", local_user()), ChatOptions(), None, runner)
