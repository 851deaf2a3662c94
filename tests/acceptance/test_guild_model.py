"""From a token to a first answer: ``palaver up`` with Discord configured, embedded server and real chat model."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import embedded_model
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import TOKEN, Message

pytestmark = [pytest.mark.model, pytest.mark.timeout(240)]

_FOREIGN = ("PALAVER_", "REDIS", "DISCORD_", "SLACK_")


@contextlib.contextmanager
def up(fake: FakeGuild) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """A running ``palaver up`` with the bot's token in its environment."""
    embedded_model.directory()
    directory = Path(tempfile.mkdtemp(prefix="plu"))
    (directory / "models").symlink_to(embedded_model.DATA_DIR / "models")
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
    environment = own | {
        "PALAVER_DATA_DIR": str(directory),
        "PALAVER_LOG_LEVEL": "info",
        "DISCORD_TOKEN": TOKEN,
        "DISCORD_API_BASE_URL": fake.api_url,
    }
    log = directory / "up.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "bots.cli", "up"], env=environment, stdout=output, stderr=output
        )
    try:
        yield process, log
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        shutil.rmtree(directory, ignore_errors=True)


async def test_palaver_up_with_a_token_answers_in_the_guild():
    async with FakeGuild() as guild:
        with up(guild) as (process, log):

            def connected() -> bool:
                assert process.poll() is None, log.read_text()[-3_000:]
                return bool(guild.gateway.connected)

            await until(connected, "the bot to connect", 120)
            prompt = await guild.mention("What is the capital of France?")

            def final() -> Message | None:
                found = guild.answers(prompt)
                return found[0] if found and "Stop" not in found[0].buttons and found[0].content else None

            message = await until(final, "the answer", 180)
            assert "Paris" in message.content or "France" in message.content, "it is sampled, and a small model errs"
            again = await guild.mention("And what is it known for?")
            await until(lambda: [m for m in guild.answers(again) if "Stop" not in m.buttons], "the next answer", 120)
            assert TOKEN not in log.read_text(), "secrets are never logged"
