"""The real ``palaver discord`` as a process, against the stand-in and a real Valkey."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.fake_guild.rules import Rules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import GUILD, TOKEN, Channel
from tests.valkey import die_with_parent

_FOREIGN = ("PALAVER_", "REDIS", "DISCORD_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class BotProcess:
    """One process of the front-end.

    Args:
        fake: The platform that it talks to.
        redis_url: Its queue.
        settings: Further variables of its environment.
    """

    def __init__(self, fake: FakeGuild, redis_url: str, **settings: str) -> None:
        self._fake = fake
        self._directory = Path(tempfile.mkdtemp(prefix="pld"))
        self.log = self._directory / "bot.log"
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
        self._environment = own | {
            "PALAVER_DATA_DIR": str(self._directory),
            "PALAVER_LOG_LEVEL": "debug",
            "PALAVER_CONVERSATION__DISCLOSURE": "",  # answers are compared whole
            **{f"PALAVER_LIMITS__CHAT__{scope}__BURST": "1000" for scope in ("TENANT", "CHANNEL", "USER")},
            "REDIS_URL": redis_url,
            "DISCORD_TOKEN": TOKEN,
            "DISCORD_API_BASE_URL": fake.api_url,
            "DISCORD_CDN_BASE_URL": fake.cdn_url,
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.debug = True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def launch(self) -> BotProcess:
        """Start it and wait for nothing."""
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bots.cli", *(["--debug"] if self.debug else []), "discord"],
                env=self._environment, stdout=output, stderr=output, preexec_fn=die_with_parent,
            )  # fmt: skip
        return self

    async def start(self) -> BotProcess:
        """Start it, and return once it is connected and ready."""
        before = self.read_log().count("connected to Discord")
        self.launch()

        def ready() -> bool:
            assert self.running, self.read_log()[-3_000:]
            return self.read_log().count("connected to Discord") > before

        await until(ready, "the bot to connect")
        return self

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill9(self) -> None:
        """As a crash."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    def stop(self) -> int:
        """Orderly; returns the exit code."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(30)

    def code(self) -> int | None:
        """Its exit code, None while it runs."""
        return self._process.poll() if self._process else None

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait(20)

    def read_log(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@contextlib.asynccontextmanager
async def running(
    redis_url: str, rules: Rules | None = None, **settings: str
) -> AsyncIterator[tuple[FakeGuild, BotProcess]]:
    """A platform and a bot that serves it, without a traceback to its end."""
    async with FakeGuild(rules) as fake:
        bot = BotProcess(fake, redis_url, **settings)
        try:
            await bot.start()
            yield fake, bot
        finally:
            bot.end()
            assert "Traceback" not in bot.read_log(), bot.read_log()[-3_000:]


def place(guild: FakeGuild) -> int:
    """A channel of the guild in which nobody has written."""
    channel = Channel(guild.world.snowflake(), GUILD)
    guild.world.channels[channel.id] = channel
    return channel.id
