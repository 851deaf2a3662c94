"""``palaver evaluate``: how good the models are, measured on this machine."""

from __future__ import annotations

import os
import subprocess
import sys

import click


@click.group(name="evaluate")
def command() -> None:
    """Measure the models: figures, and sheets for the eye."""


@command.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def image(arguments: tuple[str, ...]) -> None:
    """Measure the image model: recognisability, FID, KID, variety."""
    _run("generation.evaluation.image", "palaver evaluate image", arguments)


@command.command(
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    add_help_option=False,
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def answers(arguments: tuple[str, ...]) -> None:
    """Measure answers from knowledge: ranks, languages, refusals."""
    _run("generation.evaluation.answers", "palaver evaluate answers", arguments)


def _run(module: str, name: str, arguments: tuple[str, ...]) -> None:
    """Run a module of the models' floor as a process of its own: it needs torch, which front-ends do not import.

    Its options and its help are its own; its exit code becomes ours.
    """
    from bots.settings import load

    environment = os.environ | {"PALAVER_DATA_DIR": str(load().data_dir)}
    code = f"import {module} as evaluation; evaluation.main(prog_name={name!r})"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)
    while True:
        try:
            raise SystemExit(process.wait())
        except KeyboardInterrupt:  # the terminal has told the child as well: wait for its orderly end
            continue
