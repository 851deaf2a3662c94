"""``palaver doctor``: what may keep Palaver from working here, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from bots import log, settings
from bots.diagnosis import Level, diagnose

#: What the command exits with when something will not work (sysexits.h, EX_CONFIG).
_EXIT_ERROR = 78
_SIGNS: dict[Level, str] = {"ok": "ok      ", "warning": "warning ", "error": "ERROR   "}


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Write one JSON array, for scripts.")
def command(as_json: bool) -> int:
    """Look for what may keep Palaver from working here; each finding with a remedy.

    Exits with 0 if nothing is wrong, warnings included, and with 78 if something will not work.
    """
    configured = settings.load()
    log.configure("error")
    findings = []
    for finding in diagnose(configured):
        findings.append(finding)
        if not as_json:
            click.echo(f"{_SIGNS[finding.level]}{finding.name:<18} {finding.found}")
            if finding.remedy:
                click.echo(f"{'':>27}-> {finding.remedy}")
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings]))
    return _EXIT_ERROR if any(finding.level == "error" for finding in findings) else 0
