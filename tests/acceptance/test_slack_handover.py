"""A person takes over in Slack: the same hand-over, in its threads."""

from __future__ import annotations

import pytest
import redis

from bots.tenant_config import TenantConfig
from tests import answer_worker
from tests.bot_process import running
from tests.fake_workspace.content import Message
from tests.fake_workspace.server import FakeWorkspace
from tests.valkey import ValkeyProcess
from workers import keys

pytestmark = [pytest.mark.timeout(180)]


async def says(fake: FakeWorkspace, channel: str, thread: str | None, text: str) -> Message:
    found: list[Message] = await fake.wait(
        lambda: [each for each in fake.thread(channel, thread) if text in each.body], text
    )
    return found[-1]


async def test_a_person_takes_over_in_slack_and_a_crash_loses_nothing():
    server = ValkeyProcess(persist=False).start()
    config = TenantConfig(support_channels=("C1",), team_channel="C2")
    with redis.Redis.from_url(server.url) as client:
        client.set(keys.tenant_config("slack-T1"), config.model_dump_json())
    with answer_worker.answering(server.url, ("slack-T1",)):
        async with running(server.url) as (fake, bot):
            fake.admins.add("U9")
            fake.channel("C2")
            ts = await fake.say("U1", "C1", "{bot} How long may I return an order?")
            await says(fake, "C1", ts, "30 days")
            await fake.say("U1", "C1", "I want to speak to a real person", ts)
            await says(fake, "C1", ts, "number 1 in line")
            card = await says(fake, "C2", None, "asked for a person")
            await says(fake, "C2", card.ts, "How long may I return an order?")
            bot.kill9()
            await fake.say("U1", "C1", "Is anybody there?", ts)
            await bot.start()
            await fake.press("U9", card, "Take")
            await says(fake, "C1", ts, "u9 has taken over")
            await fake.say("U9", "C2", "Hello, I am here.", card.ts)
            await says(fake, "C1", ts, "Hello, I am here.")
            await fake.say("U1", "C1", "It is about my order", ts)
            await says(fake, "C2", card.ts, "It is about my order")
            await fake.press("U9", card, "Resolve")
            await says(fake, "C1", ts, "u9 has closed this")
            await says(fake, "C2", card.ts, "Draft")
            told = [each.body for each in fake.thread("C1", ts)]
            assert sum("Hello, I am here." in each for each in told) == 1
            assert sum("has taken over" in each for each in told) == 1

            draft = await says(fake, "C2", card.ts, "Draft")
            await fake.press("U9", draft, "Approve")
            await fake.wait(lambda: any("Approved" in each.body for each in fake.whispers("U9")), "the approval")
            await fake.command("U1", "C1", "/privacy")
            await fake.press("U1", fake.whispers("U1")[-1], "Export")
            await fake.wait(lambda: any("Hello, I am here." in each.body for each in fake.whispers("U1")), "the export")
            await fake.press("U1", next(each for each in fake.whispers("U1") if each.buttons), "Delete")
            await fake.wait(lambda: any("are deleted" in each.body for each in fake.whispers("U1")), "the deletion")
            await fake.press("U9", draft, "Reject")
            await fake.wait(
                lambda: any("ticket is closed" in each.body for each in fake.whispers("U9")), "that it is gone"
            )

            ts = await fake.say("U1", "C1", "{bot} I want to speak to a real person about umbrellas")
            card = await says(fake, "C2", None, "umbrellas")
            await fake.press("U9", card, "Take")
            await says(fake, "C1", ts, "u9 has taken over")
            await fake.say("U9", "C2", "We have some.", card.ts)
            await says(fake, "C1", ts, "We have some.")
            await fake.press("U9", card, "Resolve")
            draft = await says(fake, "C2", card.ts, "Draft")
            await fake.command("U1", "C1", "/forget")
            await fake.press("U9", draft, "Approve")
            gone = "ticket is closed"
            await fake.wait(lambda: sum(gone in each.body for each in fake.whispers("U9")) == 2, "that this is, too")
    server.remove()
