"""Chat in the Slack front-end: the real process, a stand-in for the platform, a real Valkey and a real worker."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

import pytest
import pytest_asyncio
import redis

from tests.bot_process import BotProcess, running
from tests.fake_workspace.content import Message
from tests.fake_workspace.server import FakeWorkspace
from tests.slack_answers import answers, asked, quiet, right
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker
from workers import keys

pytestmark = [pytest.mark.asyncio(loop_scope="module")]


@pytest.fixture(scope="module")
def queue():
    server = ValkeyProcess(persist=False).start()
    with worker(config(server.url, step_s=0.001)):
        yield server
    server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack(queue):
    async with running(queue.url) as pair:
        yield pair


@pytest.fixture
def fake(slack) -> FakeWorkspace:
    return slack[0]


# Where and what is answered


async def test_a_mention_is_answered_in_its_thread_by_a_stream(fake):
    question = asked(150, step_s=0.02)
    ts = await fake.say("U1", "C1", "{bot} " + question)
    (message,) = await answers(fake, "C1", ts)
    assert message.body == right(question)
    assert len(message.revisions) > 2, "it grew"
    assert fake.called("chat.startStream")[-1].args["recipient_user_id"] == "U1"
    session = await fake.wait(
        lambda: fake.sessions[("C1", ts)]["seen"][-1:] == ["active"] and fake.sessions[("C1", ts)]
    )
    assert session["seen"] == ["processing", "active"]
    assert session["title"].startswith('{"tokens"')
    assert "is thinking…" in session["texts"]


async def test_a_thread_goes_on_without_a_mention_and_with_its_context(fake, queue):
    first, second = asked(4), asked(6)
    ts = await fake.say("U2", "C2", "{bot} " + first)
    await answers(fake, "C2", ts)
    await fake.say("U3", "C2", second, ts)
    found = await answers(fake, "C2", ts, 2)
    assert [each.body for each in found] == [right(first), right(second)]
    with redis.Redis.from_url(queue.url) as client:
        kept = client.hgetall(keys.conversation("slack-T1", f"C2-{ts.replace('.', '-')}"))
    assert kept[b"a:1"].decode().strip() == right(first)
    assert kept[b"q:2"].decode() == second


async def test_what_is_not_meant_for_the_bot_is_not_answered(fake):
    ts = await fake.say("U4", "C4", "good morning everybody")
    await fake.say("U5", "C4", "good morning!", ts)
    mine = await fake.say("U4", "C4", "{bot} " + asked(3))
    await answers(fake, "C4", mine)
    await fake.say("U5", "C4", "<@U4> what do you think?", mine)
    await quiet(fake)
    assert fake.thread("C4", ts) == []
    assert len(fake.thread("C4", mine)) == 1


async def test_direct_messages_are_answered_with_their_thread_as_the_conversation(fake):
    first, second = asked(4), asked(5)
    ts = await fake.say("U6", "D6", first)
    await answers(fake, "D6", ts)
    await fake.say("U6", "D6", second, ts)
    assert [each.body for each in await answers(fake, "D6", ts, 2)] == [right(first), right(second)]


async def test_own_and_other_programs_messages_never_trigger(fake):
    fake.bots.add("UOTHER")
    ts = await fake.say("UOTHER", "C7", "{bot} " + asked(3), bot_id="B77")
    own = await fake.say("UBOT1", "D7", asked(3))
    edited = await fake.say("U7", "D7", asked(3), subtype="message_changed", hidden=True)
    joined = await fake.say("U7", "D7", "has joined", subtype="channel_join")
    await quiet(fake)
    assert [fake.thread("C7", ts), fake.thread("D7", own), fake.thread("D7", edited), fake.thread("D7", joined)] == [
        []
    ] * 4


async def test_a_mention_without_words_is_explained_privately(fake):
    ts = await fake.say("U8", "C8", "{bot}")
    (hint,) = await fake.wait(lambda: fake.whispers("U8"), "a hint")
    assert "without a question" in hint.body
    assert fake.thread("C8", ts) == []


# Exactly once


async def test_repeated_events_give_one_answer(fake):
    question = asked(5)
    text = f"<@UBOT1> {question}"
    ts = await fake.say("U10", "C10", text)
    message = {**fake.find("C10", ts).public(), "channel": "C10", "channel_type": "channel", "event_ts": ts}
    same_id = fake.envelope(message, event_id="Ev1")
    for payload in (same_id, same_id, fake.envelope(message), fake.envelope({**message, "type": "app_mention"})):
        assert (await fake.delivery.event(payload)).ok
    await answers(fake, "C10", ts)
    await fake.delivery.event(same_id)
    await quiet(fake)
    (only,) = fake.thread("C10", ts)
    assert only.body == right(question)


async def test_an_unacknowledged_event_comes_again_and_is_answered_once(fake):
    fake.faults.drop_acks = 2
    fake.rules.ack_deadline_s, question = 1.0, asked(5)
    ts = await fake.say("U11", "D11", question)
    fake.rules.ack_deadline_s = 3.0
    assert not all(ack.ok for ack in fake.acks)
    (only,) = await answers(fake, "D11", ts)
    await quiet(fake)
    assert [only] == fake.thread("D11", ts)


# What an answer looks like


async def test_long_answers_are_split_and_lose_nothing(fake):
    question = asked(1_500)
    ts = await fake.say("U12", "D12", question)
    found = await answers(fake, "D12", ts, 2)
    assert all(len(each.body) <= 12_000 for each in found)
    assert " ".join(each.body for each in found) == right(question)


MARKDOWN = """# Title

| a | b |
|---|---|
| 1 | 2 |

```python
def f(x):
    return x < 1 and "@here" or x
```

Done, *really*."""


async def test_markdown_goes_out_as_markdown(fake):
    ts = await fake.say("U13", "D13", json.dumps({"say": MARKDOWN}))
    (message,) = await answers(fake, "D13", ts)
    assert message.blocks[0]["type"] == "markdown"
    assert message.body.replace("\u200b", "") == MARKDOWN


async def test_a_growing_code_block_is_streamed_without_a_closing_fence(fake):
    code = "```python\n" + "\n".join(f"x{number} = {number}" for number in range(100)) + "\n```\n\nThat was it."
    ts = await fake.say("U14", "D14", json.dumps({"say": code, "step_s": 0.1}))
    (message,) = await answers(fake, "D14", ts)
    assert message.body == code
    assert message.edits == 0, "the stream was never given up for an edit"
    assert len(message.revisions) >= 2
    assert all(code.startswith(revision) for revision in message.revisions)


async def test_nothing_that_is_written_pings(fake):
    hostile = "Hi <!channel> <!here> <!everyone|x> <@U15> <!subteam^S1|@ops> @here and @channel, `<!channel>`. "
    ts = await fake.say("U15", "C15", "{bot} " + json.dumps({"say": hostile * 8, "step_s": 0.1}))
    await answers(fake, "C15", ts)
    await fake.command("U15", "C15", "/chat", json.dumps({"say": hostile}).replace("<", "&lt;").replace(">", "&gt;"))
    await answers(fake, "C15", None)
    assert fake.pings == []


# Stopping


async def stopped(fake: FakeWorkspace, press: Callable[[Message | None], object], channel: str, user: str) -> Message:
    ts = await fake.say(user, channel, "{bot} " + asked(4_000, step_s=0.02))
    await fake.wait(lambda: any(len(each.body) > 20 for each in fake.thread(channel, ts)), "the first words")
    await press(ts)
    (message,) = await answers(fake, channel, ts)
    await fake.wait(lambda: message.body.endswith("Stopped."), "the end")
    return message


async def test_the_platforms_own_stop_ends_an_answer(fake):
    message = await stopped(fake, lambda ts: fake.press_native_stop("U16", "C16", ts), "C16", "U16")
    assert 20 < len(message.body) < 3_000
    seen = await fake.wait(lambda: fake.sessions[("C16", message.thread_ts)]["seen"][1:], "the session's end")
    assert seen == ["active"]


async def test_others_cannot_stop_an_answer_and_are_told_why(fake):
    ts = await fake.say("U17", "C17", "{bot} " + asked(300, step_s=0.01))
    await fake.wait(lambda: fake.thread("C17", ts), "the first words")
    await fake.press_native_stop("U18", "C17", ts)
    (told,) = await fake.wait(lambda: fake.whispers("U18"), "why not")
    assert "Only the person who asked" in told.body
    (message,) = fake.thread("C17", ts)
    whole = right(asked(300, step_s=0.01))
    await fake.wait(lambda: message.body == whole, "the whole answer, although the platform has closed its stream")


async def test_moderators_can_stop_others_answers(fake):
    fake.admins.add("U20")
    message = await stopped(fake, lambda ts: fake.press_native_stop("U20", "C19", ts), "C19", "U19")
    assert message.body.endswith("Stopped.")


# Commands


async def test_chat_answers_in_the_channel_and_its_thread_goes_on(fake):
    question = asked(6)
    ack = await fake.command("U21", "C21", "/chat", question)
    assert ack.ok
    assert "On it" in fake.whispers("U21")[0].body
    (message,) = await answers(fake, "C21", None)
    assert right(question) in message.body
    assert "u21" in message.body
    await fake.say("U22", "C21", asked(7), message.ts)
    (follow_up,) = await answers(fake, "C21", message.ts)
    assert follow_up.body == right(asked(7))


async def test_ask_says_that_there_is_no_knowledge_base(fake):
    await fake.command("U23", "C23", "/ask", asked(4))
    assert "No knowledge base" in fake.whispers("U23")[0].body
    await answers(fake, "C23", None)


async def test_a_command_without_a_question_explains_itself(fake):
    await fake.command("U24", "C24", "/chat", "   ")
    assert "/chat Why is the sky blue?" in fake.whispers("U24")[0].body


async def test_the_agents_view_suggests_prompts(fake):
    await fake.open_home("U25", "messages")
    prompts = await fake.wait(lambda: fake.prompts.get("D25"), "prompts")
    assert len(prompts) == 4
    ts = await fake.say("U25", "D25", prompts[0]["message"])
    await answers(fake, "D25", ts)


async def test_acknowledgements_under_twenty_users_at_once(fake):
    fake.acks.clear()
    fake.rules.enforce_tiers = False

    async def one(number: int) -> None:
        channel, question = f"D3{number:02}", asked(40 + number)
        ts = await fake.say(f"U3{number:02}", channel, question)
        (message,) = await answers(fake, channel, ts)
        assert message.body == right(question)

    await asyncio.gather(*(one(number) for number in range(20)))
    fake.rules.enforce_tiers = True
    latencies = sorted(ack.latency_s for ack in fake.acks)
    assert all(ack.ok for ack in fake.acks)
    assert latencies[len(latencies) // 2] < 1.0, latencies


async def test_nothing_that_was_written_is_in_the_log(fake, slack):
    bot: BotProcess = slack[1]
    log = bot.read_log()
    assert "tokens" not in log
    assert "xoxb-1-secret" not in log
    assert "Traceback" not in log, log[-3_000:]
    assert fake.tokens_elsewhere == []
