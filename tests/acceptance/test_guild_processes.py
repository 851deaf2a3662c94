"""The life and death of the Discord front-end's processes: killed, restarted, doubled, misconfigured, cut off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator

import pytest

from bots.delivery import wording
from tests.engines import answer
from tests.fake_guild.bot import BotProcess
from tests.fake_guild.rules import Rules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import ALICE, CHANNEL, GUILD, Message
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker

pytestmark = [pytest.mark.timeout(180), pytest.mark.kill]


def orders(**what: object) -> str:
    return json.dumps(what)


@pytest.fixture(scope="module")
def valkey():
    process = ValkeyProcess(persist=False).start()
    with worker(config(process.url, step_s=0.01)):
        yield process
    process.remove()


@contextlib.asynccontextmanager
async def bots(
    guild: FakeGuild, url: str, count: int = 1, sharded: bool = False, **settings: str
) -> AsyncIterator[list[BotProcess]]:
    made = []
    for number in range(count):
        own = {"PALAVER_DISCORD__SHARD_ID": str(number), "PALAVER_DISCORD__SHARD_COUNT": str(count)} if sharded else {}
        made.append(BotProcess(guild, url, **own, **settings))
    try:
        for bot in made:
            await bot.start()
        yield made
    finally:
        for bot in made:
            bot.end()


def growing(guild: FakeGuild, prompt: Message) -> list[Message]:
    return [each for each in guild.answers(prompt) if len(each.history) > 1]


def final(guild: FakeGuild, prompt: Message, text: str) -> list[Message]:
    return [each for each in guild.answers(prompt) if each.content == text and not each.buttons]


@pytest.mark.parametrize("as_command", [False, True])
async def test_a_killed_bot_finishes_its_answer_after_its_restart_in_the_same_message(valkey, as_command):
    text = orders(tokens=150, step_s=0.04, as_command=as_command)
    whole = answer(text, 150).strip()
    async with FakeGuild() as guild, bots(guild, valkey.url) as (bot,):
        if as_command:
            command = await guild.command("chat", prompt=text)
            message = await until(lambda: guild.response(command), "the acknowledgement")
        else:
            prompt = await guild.mention(text)
            (message,) = await until(lambda: growing(guild, prompt), "text")
        await until(lambda: len(message.history) > 1, "text")
        bot.kill9()
        assert message.content != whole
        await bot.start()
        await until(lambda: message.content == whole and not message.buttons, "the final text")
        assert len(guild.answers(channel=CHANNEL)) == 1


async def test_kill_9_at_any_moment_gives_every_prompt_one_final_answer(valkey):
    guild_rules = Rules(per_window=50)
    async with FakeGuild(guild_rules) as guild, bots(guild, valkey.url) as (bot,):
        prompts = []
        for round_ in range(3):
            text = orders(tokens=30, step_s=0.02, round=round_)
            prompts += [(await guild.mention(text), text), (await guild.mention(text), text)]
            await asyncio.sleep(0.15 + 0.35 * round_)
            bot.kill9()
            await bot.start()

        def answers_to(prompt: Message) -> list[Message]:
            return [each for each in guild.answers(channel=CHANNEL) if each.reference == prompt.id]

        def all_final() -> bool:
            return all(
                [each.content for each in answers_to(prompt)] in ([answer(text, 30).strip()], [wording.LOST])
                or not answers_to(prompt)
                for prompt, text in prompts
            )

        await asyncio.sleep(7)  # leases of the killed run out
        await until(all_final, "final answers")
        finals = [[each.content for each in answers_to(prompt)] for prompt, _ in prompts]
        assert all(len(each) <= 1 for each in finals), "never two"
        # What the bot had not yet accepted when it died, nobody was promised.
        assert sum(each == [answer(text, 30).strip()] for each, (_, text) in zip(finals, prompts, strict=True)) >= 3


async def test_two_processes_answer_once(valkey):
    async with FakeGuild(Rules(per_window=50)) as guild, bots(guild, valkey.url, 2) as (first, second):
        texts = [orders(tokens=40, step_s=0.03, number=number) for number in range(6)]
        prompts = [await guild.mention(text) for text in texts]  # both processes get every event
        await asyncio.sleep(0.5)
        first.kill9()

        def done() -> bool:
            return all(
                final(guild, prompt, answer(text, 40).strip()) for prompt, text in zip(prompts, texts, strict=True)
            )

        await until(done, "all answers")
        assert len(guild.answers(channel=CHANNEL)) == 6
        assert second.running


async def test_two_shards_answer_once_and_for_each_other(valkey):
    async with FakeGuild(Rules(per_window=50)) as guild, bots(guild, valkey.url, 2, sharded=True) as shards:
        theirs = shards[(GUILD >> 22) % 2]
        text, slow = orders(tokens=10), orders(tokens=120, step_s=0.03)
        direct = await guild.say(text, channel=guild.direct())
        mention, command = await guild.mention(text), await guild.command("chat", prompt=text)
        await until(lambda: final(guild, direct, answer(text, 10).strip()), "the direct answer")
        await until(lambda: final(guild, mention, answer(text, 10).strip()), "the answer")
        await until(lambda: (m := guild.response(command)) and m.content == answer(text, 10).strip(), "the command's")
        prompt = await guild.mention(slow)
        await until(lambda: growing(guild, prompt), "text")
        theirs.kill9()  # the other shard never sees that guild, and finishes its answer all the same
        (message,) = await until(lambda: final(guild, prompt, answer(slow, 120).strip()), "the final text")
        assert len([each for each in guild.answers(channel=CHANNEL) if each.reference == prompt.id]) == 1
        assert len(guild.answers(direct)) == 1
        assert message.reference == prompt.id


async def test_an_orderly_stop_hands_over_at_once(valkey):
    text = orders(tokens=150, step_s=0.03)
    async with FakeGuild() as guild, bots(guild, valkey.url, 2) as (first, second):
        prompt = await guild.mention(text)
        await until(lambda: growing(guild, prompt), "text")
        assert first.stop() == 0
        assert second.running
        await until(lambda: final(guild, prompt, answer(text, 150).strip()), "the final text")
        # What another test's bots left to be said is said here too, in reply to a prompt that this guild never saw.
        assert len([each for each in guild.answers(prompt) if each.reference == prompt.id]) == 1


async def test_who_waits_reads_the_position_and_the_time_where_the_answer_will_be(tmp_path):
    server = ValkeyProcess(persist=False).start()
    try:
        with worker(config(server.url, capacity=1)):
            async with FakeGuild(Rules(per_window=50)) as guild, bots(guild, server.url):
                text = orders(tokens=50, step_s=0.05)
                commands = [await guild.command("chat", prompt=text, user=ALICE + number) for number in range(4)]
                shown = [
                    await until(lambda each=each: guild.response(each), "the acknowledgement") for each in commands
                ]
                whole = answer(text, 50).strip()
                await until(lambda: all(each.content == whole and not each.buttons for each in shown), "the answers")
                # Which of them waits longest is decided by who is admitted first.
                history = [each for message in shown for each in message.history]
                told = [each for each in history if " before this one" in each or "Next in line" in each]
                assert told, history
                assert any(", about " in each for each in told), told
                assert len(guild.answers(channel=CHANNEL)) == 4, "all in the messages that are there already"
    finally:
        server.remove()


async def test_buttons_work_after_a_restart(valkey):
    async with FakeGuild() as guild, bots(guild, valkey.url) as (bot,):
        prompt = await guild.mention(orders(tokens=5_000, step_s=0.02))
        (message,) = await until(lambda: growing(guild, prompt), "text")
        bot.kill9()
        await bot.start()
        await guild.press(message, message.buttons["Stop"])
        await until(lambda: message.content.endswith(wording.STOPPED), "the stop")


async def test_commands_are_registered_only_when_they_changed(valkey):
    async with FakeGuild() as guild, bots(guild, valkey.url) as (bot,):
        registered = guild.world.command_syncs
        for command in guild.world.commands:
            # In guilds, and by users for themselves; only a guild can be configured.
            own = command["name"] == "config"
            assert command["integration_types"] == ([0] if own else [0, 1])
            assert command["contexts"] == ([0] if own else [0, 1, 2])
        bot.kill9()
        await bot.start()
        assert guild.world.command_syncs == registered


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"DISCORD_TOKEN": "wrong"}, "does not accept DISCORD_TOKEN"),
        ({"PALAVER_DISCORD__MESSAGE_CONTENT": "true"}, "Message Content intent"),
        ({"DISCORD_TOKEN": ""}, "DISCORD_TOKEN is not set"),
    ],
)
async def test_what_only_a_person_can_correct_is_one_line_and_78(valkey, settings, said):
    async with FakeGuild() as guild:
        bot = BotProcess(guild, valkey.url, **settings)
        bot.debug = False
        try:
            bot.launch()
            assert await until(bot.code, "the exit") == 78
        finally:
            bot.end()
        lines = [line for line in bot.read_log().splitlines() if "WARNING palaver.redis" not in line]
        assert len(lines) == 1
        assert said in lines[0]
        assert "wrong" not in lines[0]


async def test_with_the_intent_a_thread_of_the_bot_needs_no_mention(valkey):
    rules = Rules(message_content=True)
    async with FakeGuild(rules) as guild, bots(guild, valkey.url, PALAVER_DISCORD__MESSAGE_CONTENT="true"):
        thread = await guild.open_bot_thread()
        prompt = await guild.say(orders(tokens=4), channel=thread)
        await until(lambda: final(guild, prompt, answer(orders(tokens=4), 4).strip()), "the answer")


async def test_lost_heartbeats_lead_to_a_new_connection(valkey):
    async with (
        FakeGuild(Rules(heartbeat_s=1.0)) as guild,
        bots(guild, valkey.url, PALAVER_DISCORD__HEARTBEAT_TIMEOUT_S="3"),
    ):
        before = guild.gateway.resumed + guild.gateway.identified
        guild.rules.mute = True
        await until(lambda: guild.gateway.resumed + guild.gateway.identified > before, "a new connection", 90)
        guild.rules.mute = False
        prompt = await guild.mention(orders(tokens=3))
        await until(lambda: final(guild, prompt, answer(orders(tokens=3), 3).strip()), "an answer", 90)


async def test_without_redis_the_bot_acknowledges_and_says_that_it_is_busy(tmp_path):
    valkey = ValkeyProcess(persist=True).start()
    try:
        async with FakeGuild() as guild, bots(guild, valkey.url) as (bot,):
            valkey.kill9()
            command = await guild.command("chat", prompt="hello")
            await until(lambda: guild.whispers(command), "a word")
            guild.rules.faults = [503, 503]  # which the library does not try again
            prompt = await guild.mention("hello")
            assert guild.whispers(command) == [wording.BUSY]
            assert command.acknowledged_s, "in time: a late acknowledgement is refused"
            await until(lambda: guild.answers(prompt), "a word")
            assert guild.answers(prompt)[-1].content == wording.BUSY
            crowd = await asyncio.gather(*(guild.mention("hello") for _ in range(6)))  # ids that differ in one digit
            told = await until(
                lambda: {each.reference for each in guild.answers(prompt)} >= {each.id for each in crowd}, "a word each"
            )
            assert told
            valkey.start()
            with worker(config(valkey.url, step_s=0.01)):
                again = await guild.mention(orders(tokens=5))
                await until(lambda: final(guild, again, answer(orders(tokens=5), 5).strip()), "an answer")
            assert bot.running
    finally:
        valkey.remove()


async def test_a_frozen_redis_does_not_delay_the_acknowledgement(tmp_path):
    valkey = ValkeyProcess(persist=False).start()
    try:
        async with FakeGuild() as guild, bots(guild, valkey.url):
            assert valkey.process is not None
            valkey.process.send_signal(signal.SIGSTOP)
            commands = [await guild.command("chat", prompt=orders(tokens=3)) for _ in range(5)]
            await until(lambda: all(each.acknowledged_s for each in commands), "acknowledgements")
            valkey.process.send_signal(signal.SIGCONT)
            with worker(config(valkey.url)):
                messages = [guild.world.messages[each.message or 0] for each in commands]
                await until(lambda: all(not each.buttons and len(each.content) > 5 for each in messages), "answers")
    finally:
        valkey.remove()


def test_the_bot_imports_no_model_library_and_starts_fast():
    code = (
        "import sys, time; begun = time.process_time()\n"
        "import bots.commands.discord_bot, bots.discord_bot.serve\n"
        "took = time.process_time() - begun\n"
        "heavy = {'torch', 'transformers', 'diffusers', 'numpy'} & set(sys.modules)\n"
        "print(took, *heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": "0"},
    )
    took_s, *heavy = done.stdout.split()
    print(f"imports of the front-end: {float(took_s):.2f} s of CPU")  # noqa: T201 - a figure to be read
    assert heavy == []
