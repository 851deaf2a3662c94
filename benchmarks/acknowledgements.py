"""How soon the bots for Discord and Slack acknowledge while 20 users ask at once, and what their processes take.

    python -m benchmarks.acknowledgements [--rounds 5] [--users 20] [--json FILE]

The real bot processes, a real Valkey and a real worker whose engine says words; the platforms are the stand-ins of
``tests/``, which refuse what is acknowledged after 3 s as the real ones do. Time runs from the moment at which a
stand-in begins to send an event until the acknowledgement is in its hands, so the stand-in's own work counts too.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks.measuring import Row, parse, report, server_url
from tests.bot_process import running
from tests.engines import answer
from tests.fake_guild.bot import BotProcess as GuildBot
from tests.fake_guild.rules import Rules as GuildRules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import GUILD, OWNER, Channel
from tests.fake_workspace.rules import Rules as WorkspaceRules
from tests.slack_answers import answers, asked, right
from tests.worker_processes import config, worker

FRONT_ENDS = {"Discord": "discord_bot", "Slack": "slack_bot"}
WORDS = 30
STARTS = 5


async def in_guild(url: str, users: int, rounds: int) -> Row:
    async with FakeGuild(GuildRules(per_window=1_000)) as guild:
        bot = GuildBot(guild, url)
        bot.debug = False
        try:
            await bot.start()
            commands = []
            for number in range(rounds):  # later ones meet the answers to earlier ones
                channel = Channel(guild.world.snowflake(), GUILD)
                guild.world.channels[channel.id] = channel
                texts = [json.dumps({"tokens": WORDS, "user": user, "round": number}) for user in range(users)]
                sent = [
                    guild.command("chat", user=OWNER + 100 + user, channel=channel.id, prompt=text)
                    for user, text in enumerate(texts)
                ]
                commands += zip(await asyncio.gather(*sent), texts, strict=True)
                await asyncio.sleep(0.3)

            def all_right() -> bool:
                shown = [(guild.response(command), text) for command, text in commands]
                return all(message and message.content == answer(text, WORDS).strip() for message, text in shown)

            await until(all_right, "every answer", 300)
            waits_s = [(command.acknowledged_s or 1e9) - command.created_s for command, _ in commands]
            return Row("Discord: commands", figures(waits_s, bot.pid))
        finally:
            bot.end()


async def in_workspace(url: str, users: int, rounds: int, http: bool) -> Row:
    quiet = {"PALAVER_LOG_LEVEL": "info"}
    generous = {f"PALAVER_LIMITS__CHAT__{scope}__BURST": "1000" for scope in ("TENANT", "CHANNEL", "USER")}
    async with running(url, WorkspaceRules(enforce_tiers=False), http, **quiet, **generous) as (fake, bot):

        async def one(user: int, number: int) -> None:
            channel, question = f"D{user:02}", asked(WORDS, user=user, round=number)
            ts = await fake.say(f"U{user:02}", channel, question)
            (message,) = await answers(fake, channel, ts)
            assert message.body == right(question)

        for number in range(rounds):
            await asyncio.gather(*(one(user, number) for user in range(users)))
        assert all(ack.ok for ack in fake.acks)
        way = "HTTP" if http else "Socket Mode"
        return Row(f"Slack: events, {way}", figures([ack.latency_s for ack in fake.acks], bot.pid))


def figures(waits_s: list[float], pid: int) -> dict[str, float]:
    ordered = sorted(waits_s)
    of = {"p50_ms": 0.5, "p99_ms": 0.99}
    found = {name: ordered[min(len(ordered) - 1, int(len(ordered) * share))] * 1e3 for name, share in of.items()}
    return found | {"most_ms": ordered[-1] * 1e3, "acks": float(len(ordered)), "rss_mib": rss_mib(pid)}


def rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


def imports(name: str, module: str) -> Row:
    """CPU seconds of the imports of a front-end in a fresh interpreter: a busy machine does not change them much."""
    code = (
        "import sys, time\n"
        f"import bots.commands.{module}, bots.{module}.serve\n"
        "print(time.process_time(), int('torch' in sys.modules))"
    )
    taken_s = []
    for _ in range(STARTS):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
        cpu_s, torch = done.stdout.split()
        assert torch == "0"
        taken_s.append(float(cpu_s))
    return Row(f"{name}: interpreter and imports", {"cpu_ms": statistics.median(taken_s) * 1e3})


def main() -> None:
    options = parse(__doc__, rounds=5, users=20)
    rows = [imports(name, module) for name, module in FRONT_ENDS.items()]
    with server_url(options.redis) as url, worker(config(url, step_s=0.01)):
        rows.append(asyncio.run(in_guild(url, options.users, options.rounds)))
        rows += [asyncio.run(in_workspace(url, options.users, options.rounds, http)) for http in (False, True)]
    report(f"{options.users} users at once, {options.rounds} rounds", rows, options.json)


if __name__ == "__main__":
    main()
