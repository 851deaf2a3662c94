"""``palaver verify``: whether a picture, or a text, was generated here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import click

from bots import settings
from bots.settings import Settings
from generation.provenance.types import PUBLIC_KEY
from workers.errors import SettingsError

EXIT_NOT_OURS = 1


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--text", "as_text", is_flag=True, help="The files are texts; needs chat.text_watermark_key.")
@click.pass_context
def command(context: click.Context, files: tuple[Path, ...], as_text: bool) -> None:
    """Tell where pictures came from, by their invisible mark, metadata and content credentials.

    Exits with 1 if one of them is not ours.
    """
    configured = settings.load()
    strangers = sum(not _text_is_ours(configured, file) for file in files) if as_text else _pictures(configured, files)
    context.exit(EXIT_NOT_OURS if strangers else 0)


def _pictures(configured: Settings, files: tuple[Path, ...]) -> int:
    """Tell of each picture; returns how many are not ours."""
    try:
        from generation.provenance import marking  # numpy and Pillow: only this command needs them
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is missing: pip install 'palaver[image]'.") from None
    own = configured.provenance.key
    keys = (PUBLIC_KEY, *((own.get_secret_value(),) if own else ()))
    strangers = 0
    for file in files:
        report = marking.verify(file.read_bytes(), keys)
        strangers += report.origin != "ours"
        first, *rest = marking.told(report)
        click.echo(f"{file}: {first}")
        for line in rest:
            click.echo(f"  {line}")
    return strangers


def _text_is_ours(configured: Settings, file: Path) -> bool:
    """Tell of a text, by a process that may load a model library."""
    key = configured.chat.text_watermark_key
    if key is None:
        raise SettingsError("Texts carry no mark: chat.text_watermark_key is not set.")
    order = {
        "model": configured.chat.model,
        "data_dir": str(configured.data_dir),
        "key": key.get_secret_value(),
        "text": file.read_text("utf-8"),
    }
    command_line = [sys.executable, "-m", "generation.provenance.text_check"]
    done = subprocess.run(command_line, input=json.dumps(order), capture_output=True, text=True, check=False)
    told = (
        json.loads(done.stdout) if done.returncode == 0 else {"error": "the check could not run: is torch installed?"}
    )
    if "error" in told:
        raise SettingsError(f"{file}: {told['error']}")
    verdict = "This text was sampled here." if told["found"] else "Not ours: there is no mark in this text."
    click.echo(f"{file}: {verdict}")
    click.echo(f"  Score {told['score']:.1f} over {told['tokens']} tokens; short texts tell nothing.")
    return bool(told["found"])
