"""The documents name what exists: every setting, every command, every module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import BaseModel

from bots.cli import COMMANDS
from bots.settings import Settings

ROOT = Path(__file__).resolve().parents[2]


def setting_names(model: type[BaseModel], above: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names += setting_names(annotation, f"{above}{name}.")
        else:
            names.append(above + name)
    return names


def test_every_setting_is_documented_and_no_other() -> None:
    documented = re.findall(r"^\| `([a-z0-9_.]+)` \|", (ROOT / "docs/settings.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(setting_names(Settings))


def test_every_module_has_its_sentence_in_the_architecture() -> None:
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    listed = subprocess.run(
        ["git", "ls-files", "bots", "workers", "generation"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a git checkout")
    modules = [file for file in listed.stdout.split() if file.endswith(".py") and not file.endswith("__init__.py")]
    assert [module for module in modules if f"`{Path(module).name}`" not in text and f"`{module}`" not in text] == []


@pytest.mark.parametrize(
    "document",
    [
        "README.md",
        "docs/settings.md",
        "docs/architecture.md",
        "docs/operations.md",
        "docs/runbook.md",
        "docs/discord.md",
    ],
)
def test_links_lead_to_files_that_exist(document: str) -> None:
    place = ROOT / document
    links = re.findall(r"\]\((?!https?:)([^)#]+)", place.read_text("utf-8"))
    assert [link for link in links if not (place.parent / link).exists()] == []


def test_every_command_that_the_readme_shows_exists() -> None:
    shown = set(re.findall(r"^palaver (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert shown
    assert shown <= set(COMMANDS)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_has_help(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bots.cli", command, "--help"], capture_output=True, text=True, check=True
    )
    assert "Usage: palaver" in done.stdout


def test_every_alert_has_its_place_in_the_runbook() -> None:
    text = (ROOT / "docs/runbook.md").read_text("utf-8")
    places = {title.lower().replace(" ", "-") for title in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    assert len(places) == 10
    wanted = re.findall(r"docs/runbook.md#(\S+)", (ROOT / "compose/prometheus/alerts.yml").read_text("utf-8"))
    assert wanted
    assert set(wanted) <= places
