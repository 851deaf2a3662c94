"""``palaver verify``: whether a picture was generated here."""

from __future__ import annotations

from pathlib import Path

import click

from bots import settings
from workers.errors import SettingsError

EXIT_NOT_OURS = 1


@click.command("verify")
@click.argument("files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.pass_context
def command(context: click.Context, files: tuple[Path, ...]) -> None:
    """Tell where pictures came from, by their invisible mark, metadata and content credentials.

    Exits with 1 if one of them is not ours.
    """
    configured = settings.load()
    try:
        from generation.provenance import marking, watermark  # numpy and Pillow: only this command needs them
    except ModuleNotFoundError as error:
        raise SettingsError(f"{error.name} is missing: pip install 'palaver[image]'.") from None
    own = configured.provenance.key
    keys = (watermark.PUBLIC_KEY, *((own.get_secret_value(),) if own else ()))
    strangers = 0
    for file in files:
        report = marking.verify(file.read_bytes(), keys)
        strangers += report.origin != "ours"
        first, *rest = marking.told(report)
        click.echo(f"{file}: {first}")
        for line in rest:
            click.echo(f"  {line}")
    context.exit(EXIT_NOT_OURS if strangers else 0)
