"""What the Slack front-end does when something dies, breaks or refuses: each accepted prompt has one final answer."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import time
from collections.abc import Iterator

import pytest
import pytest_asyncio

from tests.bot_process import BotProcess, running
from tests.fake_workspace.content import Message
from tests.fake_workspace.rules import Rules
from tests.fake_workspace.server import FakeWorkspace
from tests.slack_answers import answers, asked, begun, exactly, is_complete, quiet, right
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

#: Long enough to be killed in the middle of, and to be edited a few times.
LONG = asked(120, step_s=0.025)
#: So that nobody has to wait long for a killed front-end's answers to be taken over.
QUICK = {"PALAVER_SLACK__LEASE_S": "1.5"}


@contextlib.contextmanager
def served() -> Iterator[ValkeyProcess]:
    server = ValkeyProcess(persist=False).start()
    with worker(config(server.url)):
        yield server
    server.remove()


@pytest.fixture(scope="module")
def queue():
    """Of the streaming workspace."""
    with served() as server:
        yield server


@pytest.fixture(scope="module")
def other_queue():
    """Of bots that live for one test: what one front-end leaves behind, another one of the same queue takes over."""
    with served() as server:
        yield server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def streaming(queue):
    async with running(queue.url, **QUICK) as pair:
        yield pair


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def editing():
    """A workspace without streams and agents: answers are edited messages with a stop button of ours."""
    rules = Rules(streaming=False, agent=False)
    with served() as server:
        async with running(server.url, rules, **QUICK) as pair:
            yield pair


@pytest.fixture
def ways(streaming, editing):
    return {"streaming": streaming, "editing": editing}


async def restarted(bot: BotProcess) -> None:
    bot.kill9()
    await bot.start()


# Kill -9


@pytest.mark.kill
@pytest.mark.parametrize("way", ["streaming", "editing"])
async def test_a_killed_front_end_goes_on_in_the_same_message(way, ways):
    fake, bot = ways[way]
    ts = await fake.say("U1", "C1", "{bot} " + LONG)
    message = await begun(fake, "C1", ts)
    await restarted(bot)
    only = await exactly(fake, "C1", ts, right(LONG))
    assert only is message


@pytest.mark.kill
@pytest.mark.parametrize("way", ["streaming", "editing"])
async def test_a_prompt_whose_front_end_dies_at_once_is_answered(way, ways):
    fake, bot = ways[way]
    ts = await fake.say("U2", "C2", "{bot} " + asked(9))
    await restarted(bot)
    await exactly(fake, "C2", ts, right(asked(9)))


@pytest.mark.kill
async def test_an_event_that_a_killed_front_end_has_not_acknowledged_comes_again(streaming):
    fake, bot = streaming
    bot.signal(signal.SIGSTOP)
    saying = asyncio.ensure_future(fake.say("U3", "D3", asked(7)))
    await asyncio.sleep(0.3)
    await restarted(bot)
    await exactly(fake, "D3", await saying, right(asked(7)))


@pytest.mark.kill
@pytest.mark.parametrize(("way", "method"), [("streaming", "chat.startStream"), ("editing", "chat.postMessage")])
async def test_a_message_whose_posting_was_not_recorded_is_found_again(way, method, ways):
    fake, bot = ways[way]
    question = asked(60, step_s=0.03)
    fake.faults.lost[method] = 1
    ts = await fake.say("U4", "C4", "{bot} " + question)
    await fake.wait(lambda: fake.called(method, "lost"), "a lost reply")
    await restarted(bot)
    await exactly(fake, "C4", ts, right(question))


@pytest.mark.parametrize(
    ("way", "methods"),
    [
        ("streaming", ("chat.startStream", "chat.appendStream", "chat.stopStream")),
        ("editing", ("chat.postMessage", "chat.update")),
    ],
)
async def test_lost_replies_double_nothing(way, methods, ways):
    fake, _ = ways[way]
    fake.faults.lost |= dict.fromkeys(methods, 1)

    async def one(number: int) -> None:
        channel = f"C5{number}"
        ts = await fake.say(f"U5{number}", channel, "{bot} " + LONG)
        await exactly(fake, channel, ts, right(LONG))

    await asyncio.gather(*(one(number) for number in range(4)))
    assert not any(fake.faults.lost.values())


@pytest.mark.kill
async def test_a_stopped_front_end_hands_over(other_queue):
    async with running(other_queue.url) as (fake, first):
        ts = await fake.say("U6", "C6", "{bot} " + LONG)
        await begun(fake, "C6", ts)
        assert await first.stop() == 0
        second = BotProcess(fake, other_queue.url)
        try:
            await second.start()
            await exactly(fake, "C6", ts, right(LONG))
        finally:
            second.end()


# Streams


async def test_a_stream_that_dies_is_finished_by_an_edit(other_queue):
    async with running(other_queue.url, Rules(stream_life_s=1.0)) as (fake, _):
        ts = await fake.say("U7", "C7", "{bot} " + LONG)
        only = await exactly(fake, "C7", ts, right(LONG))
        assert only.stream_died
        assert only.edits


async def test_a_stream_is_left_before_it_dies(other_queue):
    async with running(other_queue.url, PALAVER_SLACK__STREAM_LIFE_S="1.0") as (fake, _):
        ts = await fake.say("U8", "C8", "{bot} " + LONG)
        only = await exactly(fake, "C8", ts, right(LONG))
        assert not only.stream_died
        assert only.edits
        assert fake.called("chat.stopStream", "ok")


#: Markdown for some seconds, with blocks that no message may tear apart.
SECTION = (
    "## Part {n}\n\nSome words about it, and a few more of them.\n\n```python\nfor each in range({n}):\n\n"
    "    print(each)\n```\n\n- an item\n- another one\n\n| a | b |\n|---|---|\n| {n} | 2 |\n\nThat was it.\n\n"
)
DOCUMENT = "".join(SECTION.format(n=n) for n in range(15)).strip()
BLOCKS = ("## Part", "Some words", "```python\nfor", "- an item", "| a |", "That was it")
WRITTEN = json.dumps({"say": DOCUMENT, "step_s": 0.04})
ROLLING = {"PALAVER_SLACK__STREAM_LIFE_S": "0.9", "PALAVER_SLACK__LEASE_S": "1.5"}


async def rolled_over(fake: FakeWorkspace, channel: str, ts: str) -> list[Message]:
    """The messages of the answer, once they are all of it."""
    found: list[Message] = await fake.wait(lambda: whole(fake.thread(channel, ts)), "the whole document")
    assert "\n\n".join(each.body for each in found) == DOCUMENT, "nothing is lost, and nothing is there twice"
    for each in found:
        assert each.body.count("```") % 2 == 0
        assert each.body.startswith(BLOCKS)
        assert not each.buttons
    return found


def whole(found: list[Message]) -> list[Message]:
    return found if found and all(map(is_complete, found)) and found[-1].body.endswith(DOCUMENT[-200:]) else []


async def test_an_answer_that_outlives_its_stream_goes_on_in_another_one(other_queue):
    async with running(other_queue.url, Rules(stream_life_s=4.0), **ROLLING) as (fake, _):
        ts = await fake.say("U7", "C71", "{bot} " + WRITTEN)
        found = await rolled_over(fake, "C71", ts)
        assert len(found) >= 2
        assert len(fake.called("chat.startStream", "ok")) >= len(found) - 1, "the last one may have been whole at once"
        assert not any(each.edits or each.stream_died for each in found), "all of it was streamed"

        ts = await fake.say("U7", "C72", "{bot} " + json.dumps({"say": DOCUMENT, "step_s": 0.2}))
        await fake.wait(lambda: len(fake.thread("C72", ts)) == 2 and fake.thread("C72", ts)[1].body, "two messages")
        await fake.press_native_stop("U7", "C72", ts)
        await fake.wait(lambda: fake.thread("C72", ts)[-1].body.endswith("Stopped."), "the end of the second stream")
        first, second = fake.thread("C72", ts)
        assert DOCUMENT.startswith(first.body)
        assert all(map(is_complete, (first, second)))


@pytest.mark.kill
async def test_a_front_end_that_is_killed_while_a_stream_follows_another(other_queue):
    async with running(other_queue.url, Rules(stream_life_s=4.0), **ROLLING) as (fake, bot):
        first = await fake.say("U7", "C73", "{bot} " + WRITTEN)
        await begun(fake, "C73", first)
        second = await fake.say("U8", "C74", "{bot} " + WRITTEN)
        await fake.wait(lambda: len(fake.called("chat.startStream", "ok")) >= 3, "one that follows")
        await restarted(bot)
        for channel, ts in (("C73", first), ("C74", second)):
            await rolled_over(fake, channel, ts)


async def test_streams_can_be_switched_off(other_queue):
    async with running(other_queue.url, PALAVER_SLACK__STREAMING="false") as (fake, _):
        ts = await fake.say("U9", "C9", "{bot} " + asked(5))
        await exactly(fake, "C9", ts, right(asked(5)))
        assert not fake.called("chat.startStream")


async def test_more_answers_than_streams_are_edited_messages(streaming):
    fake, _ = streaming

    async def one(number: int) -> None:
        question = asked(30 + number, step_s=0.02)
        ts = await fake.say(f"U1{number:02}", f"D1{number:02}", question)
        await exactly(fake, f"D1{number:02}", ts, right(question))

    before = len(fake.called("chat.startStream"))
    await asyncio.gather(*(one(number) for number in range(24)))
    assert len(fake.called("chat.startStream")) - before <= 20, "a front-end that was not restarted knows the limit"


async def test_who_waits_is_told_the_position_and_the_time():
    server = ValkeyProcess(persist=False).start()
    with worker(config(server.url, capacity=1)):
        async with running(server.url) as (fake, _):
            slow = asked(60, step_s=0.05)
            places = [("D21", "U21"), ("D22", "U22"), ("D23", "U23")]
            threads = [await fake.say(user, channel, slow) for channel, user in places]
            texts = await fake.wait(lambda: fake.sessions.get(("D23", threads[2]), {}).get("texts"), "a status")
            await fake.wait(lambda: any("before this one" in text for text in texts), f"a position in {texts}")
            assert any(text.startswith("is waiting: ") for text in texts)
            shown = await fake.command("U24", "C24", "/chat", slow)
            assert shown.ok
            await fake.wait(
                lambda: any("before this one" in m.body for m in fake.thread("C24", None)), "a waiting line"
            )
    server.remove()


# The stop button of ours


async def test_our_stop_button_ends_an_answer(editing):
    fake, _ = editing
    ts = await fake.say("U11", "C11", "{bot} " + asked(4_000, step_s=0.02))
    message = await begun(fake, "C11", ts)
    assert (await fake.press("U12", message, "Stop")).ok
    (told,) = await fake.wait(lambda: fake.whispers("U12"), "why not")
    assert "Only the person who asked" in told.body
    assert (await fake.press("U11", message, "Stop")).ok
    await fake.wait(lambda: message.body.endswith("Stopped."), "the end")
    assert not message.buttons


@pytest.mark.kill
async def test_the_stop_button_outlives_a_restart(editing):
    fake, bot = editing
    ts = await fake.say("U13", "C13", "{bot} " + asked(4_000, step_s=0.02))
    message = await begun(fake, "C13", ts)
    await restarted(bot)
    await fake.press("U13", message, "Stop")
    await fake.wait(lambda: message.body.endswith("Stopped."), "the end")


# The platform refuses or breaks


@pytest.mark.parametrize("way", ["streaming", "editing"])
@pytest.mark.parametrize("fault", ["limited", "broken"])
async def test_every_method_may_refuse_or_break_once(way, fault, ways):
    fake: FakeWorkspace = ways[way][0]
    fake.faults.clear()
    getattr(fake.faults, fault)["*"] = 1
    ts = await fake.say("U14", f"C14{fault[0]}", "{bot} " + LONG)
    await exactly(fake, f"C14{fault[0]}", ts, right(LONG))
    fake.faults.clear()


async def test_a_storm_of_errors_ends_in_one_answer(editing):
    fake, _ = editing
    fake.faults.broken |= {"chat.postMessage": 3, "chat.update": 3}
    ts = await fake.say("U15", "C15", "{bot} " + asked(10))
    await exactly(fake, "C15", ts, right(asked(10)))


async def test_where_markdown_is_refused_the_words_are_shown_as_they_are(editing):
    fake, _ = editing
    fake.rules.markdown = False
    ts = await fake.say("U15", "C151", "{bot} " + asked(6))
    await exactly(fake, "C151", ts, right(asked(6)))
    fake.rules.markdown = True


async def test_a_deleted_question_or_answer_stops_the_work(editing):
    fake, _ = editing
    ts = await fake.say("U16", "C16", "{bot} " + asked(4_000, step_s=0.02))
    message = await begun(fake, "C16", ts)
    message.deleted = True
    await quiet(fake)
    await fake.wait(lambda: fake.called("chat.update", "message_not_found"), "an edit in vain")
    assert fake.thread("C16", ts) == []


# Sockets and Redis


async def test_dropped_sockets_are_opened_again(streaming):
    fake, _ = streaming
    before = fake.socket.opened
    await fake.socket.drop()
    ts = await fake.say("U17", "D17", asked(6))
    await exactly(fake, "D17", ts, right(asked(6)))
    assert fake.socket.opened > before


async def test_a_request_to_refresh_opens_another_socket(streaming):
    fake, _ = streaming
    before = fake.socket.opened
    await fake.socket.ask_to_refresh()
    ts = await fake.say("U18", "D18", asked(6))
    await exactly(fake, "D18", ts, right(asked(6)))
    assert fake.socket.opened > before


async def test_everything_is_acknowledged_while_redis_hangs(streaming, queue):
    fake, _ = streaming
    fake.admins.add("U19")
    await fake.open_home("U19")
    home = await fake.wait(lambda: fake.homes.get("U19"), "a home")
    await fake.press_in_view("U19", home, "palaver_configure")
    view = await fake.wait(lambda: [v for v in fake.views.values() if v.get("callback_id") == "palaver_config"], "it")
    question = await fake.say("U18", "C18", "{bot} " + asked(2_000, step_s=0.05))
    message = await begun(fake, "C18", question)
    stop = {"action_id": "p:stop:slack-T1__nothing", "type": "button", "text": {"text": "Stop"}}
    fake.acks.clear()
    queue.process.send_signal(signal.SIGSTOP)
    try:
        begun_s = time.monotonic()
        saying = asyncio.gather(fake.say("U19", "D19", asked(6)), fake.command("U19", "C19", "/chat", asked(7)))
        ts, command = await saying
        assert command.ok
        assert (await fake.open_home("U19", "home")).ok
        assert (await fake.press_element("U19", message, stop)).ok
        assert (await fake.submit("U19", view[0], {"persona": "You are brief."})).ok
        assert time.monotonic() - begun_s < 5 * 3
    finally:
        queue.process.send_signal(signal.SIGCONT)
    slowest = max(ack.latency_s for ack in fake.acks)
    sys.stdout.write(f"\nslowest of {len(fake.acks)} acks while Redis hangs: {slowest * 1000:.0f} ms\n")
    assert len(fake.acks) >= 5
    assert slowest < 3, "within the platform's deadline, whatever this machine is busy with"
    await exactly(fake, "D19", ts, right(asked(6)))
    found = await answers(fake, "C19", None)
    assert right(asked(7)) in found[0].body
