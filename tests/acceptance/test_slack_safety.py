"""Refusals in a workspace and what can be done about them: appeals, smaller requests, /verify."""

from __future__ import annotations

import pytest
import pytest_asyncio

from tests import safety_pictures
from tests.bot_process import BotProcess, running
from tests.fake_workspace.content import Message
from tests.fake_workspace.server import FakeWorkspace
from tests.slack_answers import answers, asked, right
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

INSULT = "你这个傻逼"
ADMIN = "U77"


@pytest.fixture(scope="module")
def queue():
    server = ValkeyProcess(persist=False).start()
    with worker(config(server.url)):
        yield server
    server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack(queue):
    async with running(queue.url, PALAVER_BUDGETS__USER_DAY_GPU_S="1.5") as (fake, bot):
        fake.admins.add(ADMIN)
        fake.channel("C99000000")
        yield fake, bot
        assert "Traceback" not in bot.read_log(), bot.read_log()[-3_000:]


@pytest.fixture
def fake(slack) -> FakeWorkspace:
    return slack[0]


@pytest.fixture
def bot(slack) -> BotProcess:
    return slack[1]


async def whispered(fake: FakeWorkspace, user: str, word: str) -> Message:
    return await fake.wait(
        lambda: next((each for each in reversed(fake.whispers(user)) if word in str(each.blocks) + each.body), None),
        f"{word!r} for {user}",
    )


async def posted(fake: FakeWorkspace, channel: str, word: str) -> Message:
    return await fake.wait(
        lambda: next((each for each in fake.thread(channel, None) if word in each.body + str(each.blocks)), None),
        f"{word!r} in {channel}",
    )


async def configure(fake: FakeWorkspace, channel: str | None) -> None:
    await fake.open_home(ADMIN)
    home = await fake.wait(lambda: fake.homes.get(ADMIN), "an admin's home")
    await fake.press_in_view(ADMIN, home, "palaver_configure")
    view = await fake.wait(lambda: [v for v in fake.views.values() if v.get("callback_id") == "palaver_config"], "it")
    await fake.submit(
        ADMIN, view[-1], {"appeals_channel": {"type": "conversations_select", "selected_conversation": channel}}
    )


async def test_an_appeal_goes_to_the_moderators_channel_and_its_outcome_to_the_user(fake, bot):
    await configure(fake, "C99000000")
    await fake.command("U1", "C1", "/chat", INSULT)
    assert "insults" in (await whispered(fake, "U1", "was stopped")).body
    button = await whispered(fake, "U1", "To appeal")
    await fake.press("U1", button, "Appeal")
    await whispered(fake, "U1", "with the moderators")
    asked_ = await posted(fake, "C99000000", "Appeal ")
    assert "傻" not in str(asked_.blocks)
    bot.kill9()
    await bot.start()
    await fake.press("U1", asked_, "Approve")
    await whispered(fake, "U1", "Only a moderator")
    await fake.press(ADMIN, asked_, "Approve")
    await posted(fake, "C99000000", "Approved by")
    await posted(fake, "D1", "was approved")


async def test_without_a_channel_admins_list_appeals(fake):
    await configure(fake, None)
    await fake.say("U2", "D2", INSULT)
    button = await fake.wait(
        lambda: next((each for each in fake.messages if each.channel == "D2" and "To appeal" in each.body), None),
        "the button",
    )
    await fake.press("U2", button, "Appeal")
    await whispered(fake, "U2", "with the moderators")
    await fake.command("U2", "C2", "/moderation", "appeals")
    await whispered(fake, "U2", "Only a moderator")
    await fake.command(ADMIN, "C2", "/moderation", "appeals")
    listed = await whispered(fake, ADMIN, "for insults")
    await fake.press(ADMIN, listed, "Deny")
    await posted(fake, "D2", "was denied")


async def test_verify_tells_where_pictures_came_from(fake):
    files = [
        fake.share(name, data, "image/png")
        for name, data in (("fox.png", safety_pictures.ours()), ("other.png", safety_pictures.theirs()))
    ]
    ts = await fake.say("U3", "C3", "look", files=files)
    message = next(each for each in fake.messages if each.ts == ts)
    message.files = files
    await fake.shortcut("U3", message, "verify_message")
    told = (await whispered(fake, "U3", "generated here")).body
    assert safety_pictures.JOB in told
    assert "Not ours" in told
    await fake.command("U4", "C3", "/verify", "")
    await whispered(fake, "U4", "the link of that")


async def test_a_smaller_answer_is_offered_when_the_budget_is_nearly_used_up(fake):
    await fake.command("U5", "C5", "/chat", asked(5))
    button = await whispered(fake, "U5", "enough left")
    assert "tokens" in button.body
    offered = await whispered(fake, "U5", "smaller one")
    await fake.press("U5", offered, "Take the smaller one")
    await answers(fake, "C5", None)


async def test_the_first_answer_that_somebody_gets_says_that_a_machine_gives_it(queue):
    said, question = "I am a machine.", asked(30, step_s=0.02)
    async with running(queue.url, PALAVER_CONVERSATION__DISCLOSURE=said) as (fake, bot):
        for user, mine in (("U71", f"{right(question)}\n\n{said}"), ("U71", right(question)), ("U72", said)):
            ts = await fake.say(user, f"D{user[1:]}", question)
            (answer,) = await answers(fake, f"D{user[1:]}", ts)
            assert answer.body.endswith(mine)
        assert "Traceback" not in bot.read_log()
