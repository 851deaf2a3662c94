"""What a front-end costs: start-up, memory at rest, CPU for events that are not for it, answers a second.

Run ``python -m benchmarks.front_end [--events 2000] [--answers 200] [--json FILE]``. Real processes of
``palaver discord`` and ``palaver slack`` against the stand-ins for their platforms in ``tests``, and a real worker with
an engine that answers at once. CPU is the front-end's own; the stand-in runs in this process.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.measuring import Row, parse, report
from tests.bot_process import BotProcess as SlackProcess
from tests.fake_guild.bot import BotProcess as GuildProcess
from tests.fake_guild.rules import Rules as GuildRules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_workspace.rules import Rules as SlackRules
from tests.fake_workspace.server import FakeWorkspace
from tests.slack_answers import is_complete
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker

TOKENS = 8
_TICKS = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_mb(pid: int) -> float:
    (line,) = [each for each in Path(f"/proc/{pid}/status").read_text().splitlines() if each.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


async def measured(
    name: str,
    bot: GuildProcess | SlackProcess,
    chatter: Callable[[int], Awaitable[object]],
    ask: Callable[[int], Awaitable[object]],
    events: int,
    answers: int,
) -> Row:
    begun_s = time.perf_counter()
    await bot.start()
    started_s = time.perf_counter() - begun_s
    await ask(0)
    figures = {"start-up s": started_s, "memory MB": memory_mb(bot.pid)}
    before_s = cpu_s(bot.pid)
    for number in range(events):
        await chatter(number)
    await ask(1)  # answered after all of them
    figures["CPU us/event"] = (cpu_s(bot.pid) - before_s) / events * 1e6
    before_s, begun_s = cpu_s(bot.pid), time.perf_counter()
    gate = asyncio.Semaphore(16)

    async def one(number: int) -> None:
        async with gate:
            await ask(number)

    await asyncio.gather(*(one(number) for number in range(2, answers + 2)))
    figures["answers/s"] = answers / (time.perf_counter() - begun_s)
    figures["CPU ms/answer"] = (cpu_s(bot.pid) - before_s) / answers * 1e3
    figures["memory after MB"] = memory_mb(bot.pid)
    return Row(name, figures)


def prompt(number: int) -> str:
    return json.dumps({"tokens": TOKENS, "n": number})


async def guild(url: str, events: int, answers: int) -> Row:
    async with FakeGuild(GuildRules(per_window=10_000)) as fake:
        bot = GuildProcess(fake, url)
        bot.debug = False

        async def ask(number: int) -> None:
            user = 7_000_000_000_000_000_000 + number
            channel = fake.direct(user)
            await fake.say(prompt(number), user=user, channel=channel)
            await until(lambda: any(not each.buttons for each in fake.answers(channel=channel)), "an answer")

        try:
            return await measured("discord", bot, lambda n: fake.say(f"chatter {n}"), ask, events, answers)
        finally:
            bot.end()


async def slack(url: str, events: int, answers: int) -> Row:
    async with FakeWorkspace(SlackRules(enforce_tiers=False)) as fake:
        bot = SlackProcess(fake, url, PALAVER_LOG_LEVEL="warning")

        async def ask(number: int) -> None:
            ts = await fake.say(f"U{number}", f"D{number}", prompt(number))
            await fake.wait(lambda: any(map(is_complete, fake.thread(f"D{number}", ts))), "an answer")

        try:
            return await measured("slack", bot, lambda n: fake.say("U1", "C1", f"chatter {n}"), ask, events, answers)
        finally:
            bot.end()


async def run(events: int, answers: int) -> list[Row]:
    server = ValkeyProcess(persist=True).start()
    try:
        with worker(config(server.url)):
            return [await guild(server.url, events, answers), await slack(server.url, events, answers)]
    finally:
        server.remove()


def main() -> None:
    options = parse(__doc__, events=2_000, answers=200)
    report("Front-ends, one process each", asyncio.run(run(options.events, options.answers)), options.json)


if __name__ == "__main__":
    main()
