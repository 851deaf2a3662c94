"""``palaver slack`` before it serves anybody: what it imports, and how it says that it cannot start."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from bots.slack_bot.interactions import IMAGINE_SHORTCUT

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = yaml.safe_load((ROOT / "compose/slack-manifest.yaml").read_text("utf-8"))


def run(*arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PALAVER_", "SLACK_", "REDIS"))}
    return subprocess.run(
        [sys.executable, "-m", "bots.cli", "slack", *arguments],
        capture_output=True, text=True, timeout=60, check=False, env=own | settings,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "settings", "named"),
    [
        ((), {}, "SLACK_BOT_TOKEN is missing"),
        ((), {"SLACK_BOT_TOKEN": "xoxp-1"}, "begins with xoxb-"),
        ((), {"SLACK_BOT_TOKEN": "xoxb-1"}, "SLACK_APP_TOKEN is missing"),
        (("--http",), {"SLACK_BOT_TOKEN": "xoxb-1"}, "SLACK_SIGNING_SECRET is missing"),
        ((), {"SLACK_API_BASE_URL": "not an address"}, "SLACK_API_BASE_URL"),
        ((), {"PALAVER_SLACK__BOT_TOKN": "x"}, "did you mean PALAVER_SLACK__BOT_TOKEN"),
    ],
)
def test_what_is_missing_is_one_line_and_exit_code_78(arguments, settings, named):
    done = run(*arguments, **settings)
    assert done.returncode == 78
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "xoxp-1" not in done.stderr


def test_the_front_end_imports_no_model_library():
    script = "import sys, bots.commands.slack_bot, bots.slack_bot.serve; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert {"torch", "transformers", "diffusers", "numpy", "discord"}.isdisjoint(loaded)


def test_the_manifest_names_what_the_code_listens_to():
    commands = {command["command"] for command in MANIFEST["features"]["slash_commands"]}
    source = (ROOT / "bots/slack_bot/commands.py").read_text("utf-8")
    assert commands == {"/" + name for name in re.findall(r'^            "([a-z]+)": self\.', source, re.MULTILINE)}
    assert MANIFEST["features"]["shortcuts"][0]["callback_id"] == IMAGINE_SHORTCUT
    events = set(MANIFEST["settings"]["event_subscriptions"]["bot_events"])
    assert {"agent_session_stopped", "app_home_opened", "app_mention", "message.im", "message.channels"} <= events


def test_the_manifest_keeps_the_platforms_limits():
    shown = MANIFEST["display_information"]
    assert len(shown["name"]) <= 35
    assert len(shown["description"]) <= 140
    assert 174 <= len(shown["long_description"]) <= 4_000
    assert len(MANIFEST["features"]["agent_view"]["suggested_prompts"]) <= 4


def test_every_scope_has_its_reason_in_the_document():
    text = (ROOT / "docs/slack.md").read_text("utf-8")
    for scope in MANIFEST["oauth_config"]["scopes"]["bot"]:
        assert f"`{scope}`" in text, scope
