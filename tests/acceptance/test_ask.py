"""Questions to documents as people ask them: in Discord, in Slack and from a script; real worker, store and model."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import pytest_asyncio

from tests import answer_worker
from tests.answer_worker import ADDRESS
from tests.bot_process import running
from tests.fake_guild.bot import BotProcess
from tests.fake_guild.server import FakeGuild, until
from tests.fake_guild.world import ALICE, GUILD, MODERATOR, Channel, Message
from tests.valkey import ValkeyProcess

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def place():
    """Queue and data directory of a worker that knows the help page."""
    process = ValkeyProcess(persist=False).start()
    with answer_worker.answering(process.url, (f"discord-{GUILD}", "slack-T1", "terminal")) as data_dir:
        yield process.url, data_dir
    process.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def guild(place):
    async with FakeGuild() as fake:
        bot = BotProcess(fake, place[0])
        try:
            await bot.start()
            yield fake
        finally:
            bot.end()
            assert "Traceback" not in bot.read_log(), bot.read_log()[-3_000:]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack(place):
    async with running(place[0], PALAVER_DATA_DIR=str(place[1])) as (fake, _):
        yield fake


def complete(message: Message) -> bool:
    return "Helpful" in message.buttons


async def said(guild: FakeGuild, question: str) -> Message:
    command = await guild.command("ask", question=question)
    message = await until(lambda: guild.response(command), "the acknowledgement")
    await until(lambda: complete(message), f"an answer to {question}")
    return message


async def test_ask_in_a_guild_quotes_and_links_to_the_place(guild):
    message = await said(guild, "how long can I send something back?")
    assert "within 30 days" in message.content
    assert f"]({ADDRESS}#how-long-may-i-return-an-order)" in message.content
    message = await said(guild, "怎么取消订单")
    assert "取消订单" in message.content
    assert "来源" in message.content
    message = await said(guild, "who won the world cup in 1974?")
    assert message.content.startswith("I do not know")
    assert "http" not in message.content


async def test_a_follow_up_is_understood_from_what_was_asked_before(guild):
    await said(guild, "What does delivery cost?")
    message = await said(guild, "and to China?")
    assert "19 euros" in message.content


async def test_what_a_document_says_changes_nothing(guild):
    message = await said(guild, "What does the warranty cover?")
    assert "two years" in message.content
    assert message.content.count("](http") == 1, "the one link is the source's"
    assert f"]({ADDRESS}" in message.content
    assert "`https://evil.example/lose`" in message.content, "others are shown, as code"
    assert "**hello**" not in message.content
    assert not guild.world.pings


async def test_mentions_in_a_channel_marked_for_support_are_answered_from_documents(guild):
    channel = Channel(guild.world.snowflake(), GUILD)
    guild.world.channels[channel.id] = channel
    change = await guild.command("config set", user=MODERATOR, setting="support_channels", value=f"<#{channel.id}>")
    (told,) = await until(lambda: guild.whispers(change), "the change")
    assert f"<#{channel.id}>" in told
    prompt = await guild.mention("How long may I return an order?", channel=channel.id)
    found = await until(lambda: [each for each in guild.answers(prompt) if complete(each)], "an answer")
    assert "30 days" in found[0].content
    assert ADDRESS in found[0].content


async def test_ask_in_a_workspace(slack):
    await slack.command("U1", "C1", "/ask", "how long can I send something back?")
    found = await slack.wait(lambda: [each for each in slack.thread("C1", None) if "30 days" in each.body], "an answer")
    assert f"{ADDRESS}#how-long-may-i-return-an-order" in found[0].body
    assert any("Not helpful" in str(each) for each in found[0].buttons.values())
    await slack.command("U2", "C2", "/ask", "What does the warranty cover?")
    await slack.wait(lambda: [each for each in slack.thread("C2", None) if "two years" in each.body], "an answer")
    assert not slack.pings


async def test_ask_in_a_script(place):
    url, data_dir = place
    environment = {**os.environ, "REDIS_URL": url, "PALAVER_DATA_DIR": str(data_dir)}

    def ask(question: str) -> dict[str, object]:
        done = subprocess.run(
            [sys.executable, "-m", "bots.cli", "ask", "--json", question],
            env=environment, capture_output=True, text=True, check=True, timeout=120,
        )  # fmt: skip
        return json.loads(done.stdout)

    told = ask("how long can I send something back?")
    assert told["decision"] == "answer"
    (citation,) = told["citations"]
    assert citation["address"] == ADDRESS
    assert citation["quote"] in told["text"]
    assert ask("who won the world cup in 1974?")["decision"] == "unknown"


async def test_admins_add_list_and_remove_documents_in_a_guild(place):
    url, data_dir = place
    async with FakeGuild() as guild:
        bot = BotProcess(guild, url, PALAVER_DATA_DIR=str(data_dir))
        try:
            await bot.start()

            async def told(name: str, user: int = MODERATOR, **given: object) -> str:
                command = await guild.command(f"knowledge {name}", user=user, **given)
                return str((await until(lambda: guild.whispers(command), name))[-1])

            page = b"# Parking\n\n## Where may I park?\n\nVisitors park behind the red barn.\n"
            assert "manage this server" in await told("list", user=ALICE)
            added = await told("add", files={"file=parking.md": page}, address="https://shop.example/parking")
            assert added.startswith("Added: "), added
            assert "red barn" in (await said(guild, "Where may I park?")).content
            document = added.split("`")[1]
            assert document in await told("list")
            assert (await told("remove", document=document)).startswith("Removed")
            assert "red barn" not in (await said(guild, "Where may I park?")).content
            assert "not a format" in await told("add", files={"file=x.exe": b"MZ"})
            assert "a file, or an address" in await told("add")
            assert "begins with https" in await told("add", address="file:///etc/passwd")
            pinned = await guild.say("The spare key hangs behind the blue door.", user=MODERATOR)
            refused = await guild.menu("Add to knowledge", pinned, user=ALICE)
            assert "manage this server" in (await until(lambda: guild.whispers(refused), "a refusal"))[-1]
            chosen = await guild.menu("Add to knowledge", pinned, user=MODERATOR)
            assert "Added" in (await until(lambda: guild.whispers(chosen), "that it is added"))[-1]
            found = (await said(guild, "Where does the spare key hang?")).content
            assert "blue door" in found
            assert f"/{pinned.id})" in found, "the source is the message"
        finally:
            bot.end()


async def test_admins_add_list_and_remove_documents_in_a_workspace(slack):
    async def told(word: str, user: str = "U9") -> str:
        def found():
            return next((each for each in reversed(slack.whispers(user)) if word in str(each.blocks) + each.body), None)

        return (await slack.wait(found, f"{word!r} for {user}")).body

    slack.admins.add("U9")
    await slack.command("U8", "C8", "/knowledge", "list")
    await told("Only an admin", "U8")
    ts = await slack.say("U9", "C8", "The coffee machine is cleaned on Thursdays.")
    pinned = next(each for each in slack.messages if each.ts == ts)
    await slack.shortcut("U9", pinned, "learn_message")
    document = (await told("Added")).split("`")[1]
    await slack.command("U9", "C9", "/ask", "When is the coffee machine cleaned?")
    found = await slack.wait(lambda: [e for e in slack.thread("C9", None) if "Thursdays" in e.body], "an answer")
    assert f"slack.example/archives/C8/p{ts.replace('.', '')}" in found[0].body, "the source is the message"
    await slack.command("U9", "C8", "/knowledge", f"remove {document}")
    await told("Removed")
