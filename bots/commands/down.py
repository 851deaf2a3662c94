"""``palaver down``: stop what was left running."""

from __future__ import annotations

import os
import signal
import time

import click

from bots import log, settings
from bots.up_lock import running_pid, set_keep

_POLL_S = 0.1
_MARGIN_S = 30.0


@click.command("down")
def command() -> int:
    """Stop what `palaver up` or `palaver chat --keep` left running; answers in progress may finish first."""
    configured = settings.load()
    log.configure(configured.log_level)
    pid = running_pid(configured.data_dir)
    if pid is None:
        click.echo("palaver: nothing runs.", err=True)
        return 0
    set_keep(configured.data_dir, keep=False)
    os.kill(pid, signal.SIGTERM)
    deadline_s = time.monotonic() + configured.worker.drain_s + _MARGIN_S
    while running_pid(configured.data_dir) == pid:
        if time.monotonic() > deadline_s:
            click.echo(f"palaver: process {pid} does not end. See what it does, or kill it.", err=True)
            return 75
        time.sleep(_POLL_S)
    click.echo("palaver: stopped.", err=True)
    return 0
