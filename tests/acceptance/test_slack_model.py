"""From two tokens to a first answer: ``palaver up`` with Slack configured, embedded server and real chat model."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests import embedded_model
from tests.fake_workspace.server import FakeWorkspace
from tests.fake_workspace.workspace import APP_TOKEN
from tests.slack_answers import answers

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

_FOREIGN = ("PALAVER_", "REDIS", "DISCORD_", "SLACK_")


async def test_palaver_up_with_tokens_answers_in_a_thread():
    embedded_model.directory()
    directory = Path(tempfile.mkdtemp(prefix="plu"))
    (directory / "models").symlink_to(embedded_model.DATA_DIR / "models")
    log = directory / "up.log"
    async with FakeWorkspace() as fake:
        token = fake.teams["T1"].bot_token
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
        environment = own | {
            "PALAVER_DATA_DIR": str(directory),
            "PALAVER_LOG_LEVEL": "info",
            "SLACK_BOT_TOKEN": token,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_API_BASE_URL": fake.api_url,
        }
        with log.open("wb") as output:
            process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time worth waiting for
                [sys.executable, "-m", "bots.cli", "up"], env=environment, stdout=output, stderr=output
            )
        try:

            def connected() -> bool:
                assert process.poll() is None, log.read_text()[-3_000:]
                return bool(fake.socket.connections)

            await fake.wait(connected, "the bot to connect", 120)
            ts = await fake.say("U1", "C1", "{bot} What is the capital of France?")
            await fake.wait(lambda: any(each.body for each in fake.thread("C1", ts)), "words", 120)
            (message,) = await answers(fake, "C1", ts)
            assert "Paris" in message.body or "France" in message.body, "it is sampled, and a small model errs"
            await fake.say("U1", "C1", "And what is it known for?", ts)
            found = await answers(fake, "C1", ts, 2)
            assert len(found[1].body) > 20
            assert token not in log.read_text(), "secrets are never logged"
            assert "capital" not in log.read_text(), "nor are prompts"
        finally:
            process.send_signal(signal.SIGTERM)
            await asyncio.to_thread(process.wait, 60)
            shutil.rmtree(directory, ignore_errors=True)
