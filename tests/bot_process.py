"""The real Slack front-end as a process, against the stand-in for the platform and a real Valkey."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from tests.fake_workspace.rules import Rules
from tests.fake_workspace.server import FakeWorkspace
from tests.fake_workspace.workspace import APP_TOKEN, SIGNING_SECRET
from tests.valkey import die_with_parent

_START_DEADLINE_S = 40.0
#: Nothing of this machine's settings may steer the bot under test.
_FOREIGN = ("PALAVER_", "REDIS", "SLACK_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")


class BotProcess:
    """One ``palaver slack``.

    Args:
        fake: The platform that it talks to.
        redis_url: Its queue.
        http: Whether it listens instead of calling.
        settings: Further variables of its environment.
    """

    def __init__(self, fake: FakeWorkspace, redis_url: str, http: bool = False, **settings: str) -> None:
        self._fake = fake
        self._http = http
        self._directory = Path(tempfile.mkdtemp(prefix="plb"))
        self.log = self._directory / "bot.log"
        own = {name: value for name, value in os.environ.items() if not name.upper().startswith(_FOREIGN)}
        tokens = ",".join(dict.fromkeys(team.bot_token for team in fake.teams.values()))
        self._environment = own | {
            "PALAVER_DATA_DIR": str(self._directory),
            "PALAVER_LOG_LEVEL": "debug",
            "PALAVER_CONVERSATION__DISCLOSURE": "",  # answers are compared whole
            "REDIS_URL": redis_url,
            "SLACK_API_BASE_URL": fake.api_url,
            "SLACK_BOT_TOKEN": tokens,
            "SLACK_APP_TOKEN": APP_TOKEN,
            "SLACK_SIGNING_SECRET": SIGNING_SECRET,
            "PALAVER_SLACK__HTTP_PORT": "0",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> BotProcess:
        """Start it, and return once it hears."""
        arguments = ["slack", *(["--http"] if self._http else [])]
        before, begun = self._fake.socket.opened, len(self.read_log())
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - starting takes no time worth waiting for
                [sys.executable, "-m", "bots.cli", *arguments],
                env=self._environment, stdout=output, stderr=output, preexec_fn=die_with_parent,
            )  # fmt: skip
        async with asyncio.timeout(_START_DEADLINE_S):
            while not self._hears(before, begun):
                assert self._process.poll() is None, self.read_log()[-3_000:]
                await asyncio.sleep(0.02)
        return self

    def _hears(self, before: int, begun: int) -> bool:
        if not self._http:
            return self._fake.socket.opened > before and bool(self._fake.socket.connections)
        for line in self.read_log()[begun:].splitlines():
            if "listening at " in line:
                self._fake.delivery.request_url = line.rpartition(" ")[2]
                return True
        return False

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def kill9(self) -> None:
        """As a crash."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(20)

    async def stop(self) -> int:
        """Orderly; returns the exit code. The platform, which runs on this loop, must be able to say goodbye."""
        assert self._process is not None
        self._process.terminate()
        async with asyncio.timeout(30):
            while (code := self._process.poll()) is None:  # noqa: ASYNC110 - a process has no event to wait for
                await asyncio.sleep(0.02)
        return code

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGCONT)
            self._process.kill()
            self._process.wait(20)

    def read_log(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@contextlib.asynccontextmanager
async def running(
    redis_url: str,
    rules: Rules | None = None,
    http: bool = False,
    teams: tuple[str, ...] = (),
    organizations: dict[str, tuple[str, ...]] | None = None,
    **settings: str,
) -> AsyncIterator[tuple[FakeWorkspace, BotProcess]]:
    """A platform and a bot that serves it."""
    async with FakeWorkspace(rules) as fake:
        for team in teams:
            fake.add_team(team)
        for enterprise, members in (organizations or {}).items():
            for team in members:
                fake.add_team(team, enterprise, org_install=True)
        bot = BotProcess(fake, redis_url, http, **settings)
        try:
            await bot.start()
            yield fake, bot
        finally:
            bot.end()
