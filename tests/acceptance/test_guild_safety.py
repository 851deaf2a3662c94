"""Refusals in a guild and what can be done about them: appeals, smaller requests, /verify, attachments, tiers."""

from __future__ import annotations

import contextlib
import json
import sqlite3

import pytest
import pytest_asyncio

from tests import safety_pictures
from tests.engines import answer
from tests.fake_guild.bot import BotProcess, place, running
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import ALICE, BOB, MODERATOR, Message
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(180)]

#: Stopped by a built-in list: an insult.
INSULT = "你这个傻逼"


@pytest.fixture(scope="module")
def valkey():
    process = ValkeyProcess(persist=False).start()
    with worker(config(process.url)):
        yield process
    process.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def _setup(valkey):
    async with running(valkey.url) as pair:
        yield pair


@pytest.fixture
def guild(_setup) -> FakeGuild:
    return _setup[0]


@pytest.fixture
def bot(_setup) -> BotProcess:
    return _setup[1]


async def notice(guild: FakeGuild, interaction) -> Message:
    """What only the user of a refused command sees."""

    def there() -> Message | None:
        ids = [interaction.message, *interaction.follow_ups]
        found = [guild.world.messages[each] for each in ids if each in guild.world.messages]
        return next((each for each in found if each.visible_to == interaction.user and each.buttons), None)

    return await until(there, "a notice with a button")


async def whispered(guild: FakeGuild, interaction) -> str:
    await until(lambda: guild.whispers(interaction), "a private word")
    return guild.whispers(interaction)[-1]


def decisions(bot: BotProcess) -> int:
    """How many decisions the bot's record holds."""
    with contextlib.closing(sqlite3.connect(bot.log.parent / "moderation.sqlite3")) as record:
        try:
            return record.execute("SELECT count(*) FROM moderation_decisions").fetchone()[0]
        except sqlite3.OperationalError:
            return 0


async def posted(guild: FakeGuild, channel: int, word: str) -> Message:
    return await until(
        lambda: next((each for each in guild.answers(channel=channel) if word in each.content), None), word
    )


async def test_an_appeal_goes_to_the_moderators_channel_and_its_outcome_to_the_user(guild, bot):
    moderators = place(guild)
    setting = {"setting": "appeals_channel", "value": f"<#{moderators}>"}
    await whispered(guild, await guild.command("config set", user=MODERATOR, **setting))
    refused = await notice(guild, await guild.command("chat", prompt=INSULT, channel=place(guild)))
    assert "insults" in refused.content
    assert "傻" not in refused.content, "no word that helps to probe the filter"
    assert set(refused.buttons) == {"Appeal"}
    await until(lambda: decisions(bot), "the decision on record")
    bot.kill9()
    await bot.start()

    stranger = await guild.press(refused, refused.buttons["Appeal"], BOB)
    assert "no refused request of yours" in await whispered(guild, stranger)
    pressed = await guild.press(refused, refused.buttons["Appeal"])
    assert "with the moderators" in await whispered(guild, pressed)
    asked = await posted(guild, moderators, "Appeal ")
    assert set(asked.buttons) == {"Approve", "Deny"}
    assert "傻" not in asked.content, "texts are kept only where the tenant wants that"
    again = await guild.press(refused, refused.buttons["Appeal"])
    assert "already" in await whispered(guild, again)

    bot.kill9()
    await bot.start()
    nobody = await guild.press(asked, asked.buttons["Approve"], BOB)
    assert "moderator" in await whispered(guild, nobody)
    await guild.press(asked, asked.buttons["Approve"], MODERATOR)
    await until(lambda: "Approved by" in asked.content and not asked.buttons, "the decision in the channel")
    told = await posted(guild, guild.direct(ALICE), "was approved")
    assert "mistake" in told.content
    late = await guild.press(refused, refused.buttons["Appeal"])
    assert "was approved" in await whispered(guild, late)


async def test_verify_tells_where_a_picture_came_from(guild):
    ours, theirs = safety_pictures.ours(), safety_pictures.theirs()
    first = await guild.command("verify", files={"file=fox.png": ours}, channel=place(guild))
    told = await whispered(guild, first)
    assert "generated here" in told
    assert safety_pictures.JOB in told
    message = await guild.say("look", channel=place(guild), files={"other.png": theirs, "fox.png": ours})
    told = await whispered(guild, await guild.menu("Where is this from?", message, BOB))
    assert "Not ours" in told
    assert "generated here" in told
    broken = await guild.command("verify", files={"file=x.png": b"no picture"}, channel=place(guild))
    assert "no picture" in await whispered(guild, broken)


async def test_without_a_channel_moderators_list_appeals(guild):
    await whispered(guild, await guild.command("config reset", user=MODERATOR, setting="appeals_channel"))
    channel = place(guild)
    message = await guild.mention(INSULT, channel=channel, user=BOB)
    refused = await posted(guild, message.channel, "insults")
    await whispered(guild, await guild.press(refused, refused.buttons["Appeal"], BOB))
    assert "moderator" in await whispered(guild, await guild.command("moderation appeals", user=BOB))
    listed = await notice(guild, await guild.command("moderation appeals", user=MODERATOR))
    await guild.press(listed, listed.buttons["Deny"], MODERATOR)
    assert "refusal stands" in (await posted(guild, guild.direct(BOB), "was denied")).content
    empty = await guild.command("moderation appeals", user=MODERATOR)
    assert "No appeals" in await whispered(guild, empty)


async def test_a_smaller_answer_is_offered_when_the_budget_is_nearly_used_up(guild):
    await whispered(guild, await guild.command("config set", user=MODERATOR, setting="user_day_gpu_s", value="1.5"))
    question = json.dumps({"tokens": 5})
    refused = await notice(guild, await guild.command("chat", prompt=question, user=BOB, channel=place(guild)))
    assert "enough left for an answer of at most 256 tokens" in refused.content
    taken = await guild.press(refused, refused.buttons["Take the smaller one"], BOB)
    await until(lambda: (m := guild.response(taken)) and m.content.strip() == answer(question, 5).strip(), "the answer")
    await whispered(guild, await guild.command("config reset", user=MODERATOR, setting="user_day_gpu_s"))


async def test_the_first_answer_that_somebody_gets_says_that_a_machine_gives_it(guild, bot):
    said, question = "I am a machine.", json.dumps({"tokens": 30, "step_s": 0.02})
    bot.stop()
    bot._environment["PALAVER_CONVERSATION__DISCLOSURE"] = said
    await bot.start()
    right = answer(question, 30).strip()
    for user, mine in ((ALICE, f"{right}\n\n{said}"), (ALICE, right), (BOB, f"{right}\n\n{said}")):
        channel = place(guild)
        await guild.mention(question, channel=channel, user=user)
        await until(
            lambda channel=channel, mine=mine: [a for a in guild.answers(channel=channel) if a.content == mine], mine
        )
