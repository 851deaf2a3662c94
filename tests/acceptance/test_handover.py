"""A person takes over in Discord: tickets, both ways of talking, a crash in between, and what is learnt from it."""

from __future__ import annotations

import itertools

import pytest
import pytest_asyncio

from tests import answer_worker
from tests.fake_guild.bot import place, running
from tests.fake_guild.rules import Rules
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import ALICE, BOB, GUILD, MODERATOR, OWNER, Message
from tests.valkey import ValkeyProcess

CAROL, DAVE = OWNER + 31, OWNER + 32
#: Whoever has asked before is called a person sooner, also by a test that failed and runs again.
NEWCOMERS = itertools.count(OWNER + 40)

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def queue():
    process = ValkeyProcess(persist=False).start()
    with answer_worker.answering(process.url, (f"discord-{GUILD}",)):
        yield process.url
    process.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bot(queue):
    rules = Rules(message_content=True)
    async with running(queue, rules, PALAVER_DISCORD__MESSAGE_CONTENT="true") as (_, process):
        yield process


@pytest.fixture
def guild(bot) -> FakeGuild:
    return bot._fake


async def set_up(guild: FakeGuild, **settings: str) -> None:
    for setting, value in settings.items():
        change = await guild.command("config set", user=MODERATOR, setting=setting, value=value)
        (told,) = await until(lambda change=change: guild.whispers(change), "the change")
        assert told.startswith("From now on"), told


async def press(guild: FakeGuild, message: Message, label: str, user: int = MODERATOR) -> str:
    pressed = await guild.press(message, message.buttons[label], user)
    return str((await until(lambda: guild.whispers(pressed), f"what {label} says"))[-1])


async def says(guild: FakeGuild, channel: int, text: str) -> Message:
    found = await until(lambda: [each for each in guild.answers(channel=channel) if text in each.content], text, 30.0)
    return found[-1]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channels(bot):
    guild = bot._fake
    support, team = place(guild), place(guild)
    await set_up(guild, support_channels=f"<#{support}>", team_channel=f"<#{team}>", handover_topics="refund, 退款")
    return support, team


@pytest_asyncio.fixture(loop_scope="module")
async def places(guild, channels):
    """Where customers ask and where the team reads. No ticket stays open behind a test, also behind one that failed."""
    yield channels
    for card in guild.answers(channel=channels[1]):
        if "Resolve" in card.buttons:
            await press(guild, card, "Resolve")


async def test_a_person_takes_over_talks_and_is_learnt_from(guild, bot, places):
    support, team = places
    question = "Do you sell gift cards? I want to talk to a human"
    await guild.mention(question, channel=support)
    await says(guild, support, "You are number 1 in line")
    card = await says(guild, team, "asked for a person")
    assert "gift cards" in card.content
    thread = card.id  # a thread that is opened on a message has its id

    await guild.say("and quickly please [now](https://evil.example)", channel=support)
    told = await says(guild, thread, "and quickly please")
    assert "](https://evil" not in told.content, "what customers write is shown as it stands"

    bot.kill9()
    await bot.start()
    told = await press(guild, card, "Take")
    assert told == "Taken."
    await says(guild, support, "mod has taken over")
    await until(lambda: "taken by mod" in card.content, "the ticket's message to say so")
    await guild.say("Yes: gift cards are sold at the counter.", user=MODERATOR, channel=thread)
    await says(guild, support, "gift cards are sold at the counter")
    await guild.say("Great, thank you.", channel=support)
    await says(guild, thread, "Great, thank you.")
    assert not [each for each in guild.answers(channel=support) if "I do not know" in each.content], "the bot is silent"

    assert "draft" in await press(guild, card, "Resolve")
    await says(guild, support, "mod has closed this")
    draft = await says(guild, thread, "**Draft")
    assert await press(guild, draft, "Approve", ALICE) == "Only a moderator can decide this."
    assert await press(guild, draft, "Approve") == "Approved: it is known from now on."
    asked = await guild.command("ask", question="Do you sell gift cards?", channel=support)
    message = await until(lambda: guild.response(asked), "an answer")
    await until(lambda: "at the counter" in message.content, "the approved answer")


async def test_two_questions_without_an_answer_call_a_person(guild, places):
    support, team = places
    somebody = next(NEWCOMERS)
    for question in ("Which horse won the derby?", "Who painted the ceiling of the opera?"):
        asked = await guild.command("ask", question=question, channel=support, user=somebody)
        message = await until(lambda asked=asked: guild.response(asked), "an answer")
        await until(lambda message=message: "Helpful" in message.buttons, "an answer")
    card = await says(guild, team, "two questions in a row")
    await until(lambda: any("**So far**" in each.content for each in guild.answers(channel=card.id)), "the transcript")
    assert await press(guild, card, "Return to bot") == "Returned to the bot."
    await says(guild, support, "Back to the machine")


async def test_a_listed_topic_and_an_angry_tone_call_a_person_and_positions_are_told(guild, places):
    support, team = places
    await guild.mention("我要退款", channel=support)
    await says(guild, support, "您排在第 1 位")
    await guild.mention("This is ridiculous, a waste of time!", channel=support, user=BOB)
    await says(guild, support, "You are number 2 in line")
    await press(guild, await says(guild, team, "退款"), "Take")
    await says(guild, support, "You are number 1 in line now")


async def test_what_a_person_wants_forgotten_is_gone_from_tickets_drafts_and_answers(guild, places):
    support, team = places
    await guild.mention("Do you mend clocks? I want to talk to a human", channel=support, user=CAROL)
    card = await says(guild, team, "mend clocks")
    await until(lambda thread=card.id: thread in guild.world.channels, "its thread")
    await press(guild, card, "Take")
    await guild.say("Clocks are mended in Basel.", user=MODERATOR, channel=card.id)
    await says(guild, support, "mended in Basel")
    await press(guild, card, "Resolve")
    assert (await press(guild, await says(guild, card.id, "**Draft"), "Approve")).startswith("Approved")
    assert "in Basel" in await answer_to(guild, "Do you mend clocks?", support)
    exported = await guild.command("privacy export", user=CAROL)
    message = await until(lambda: guild.response(exported), "the export")
    await until(lambda: message.files, "its file")
    assert b"mended in Basel" in message.files[0]

    deleted = await guild.command("privacy delete", user=CAROL)
    await until(lambda: guild.whispers(deleted), "the deletion")
    assert "in Basel" not in await answer_to(guild, "Do you mend clocks?", support), "the next answer proves it"

    await guild.mention("Do you repair umbrellas? I want to talk to a human", channel=support, user=DAVE)
    card = await says(guild, team, "repair umbrellas")
    await until(lambda thread=card.id: thread in guild.world.channels, "its thread")
    await press(guild, card, "Take")
    await guild.say("Umbrellas are repaired in Bern.", user=MODERATOR, channel=card.id)
    await says(guild, support, "repaired in Bern")
    await press(guild, card, "Resolve")
    draft = await says(guild, card.id, "**Draft")
    forgotten = await guild.command("forget", channel=support, user=DAVE)
    await until(lambda: guild.whispers(forgotten), "that it is forgotten")
    assert "ticket is closed" in await press(guild, draft, "Approve")


async def answer_to(guild: FakeGuild, question: str, channel: int) -> str:
    # Asked by somebody without a ticket there: what Alice says is still a person's business.
    asked = await guild.command("ask", question=question, channel=channel, user=DAVE)
    message = await until(lambda: guild.response(asked), "an answer")
    await until(lambda: "Helpful" in message.buttons, "the whole answer")
    return str(message.content)
