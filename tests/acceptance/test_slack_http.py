"""The Slack front-end over HTTP: signed requests alone are looked at, and do what they do over a socket."""

from __future__ import annotations

import json
import time
import urllib.parse

import pytest
import pytest_asyncio
import redis

from tests.bot_process import running
from tests.fake_workspace.delivery import signed
from tests.fake_workspace.server import FakeWorkspace
from tests.slack_answers import answers, asked, begun, exactly, quiet, right
from tests.valkey import ValkeyProcess
from tests.worker_processes import config, worker

pytestmark = [pytest.mark.asyncio(loop_scope="module")]

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def queue():
    server = ValkeyProcess(persist=False).start()
    with worker(config(server.url)):
        yield server
    server.remove()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack(queue):
    async with running(queue.url, http=True, PALAVER_SLACK__LEASE_S="1.5", SLACK_APP_TOKEN="") as pair:
        yield pair


@pytest.fixture
def fake(slack) -> FakeWorkspace:
    return slack[0]


async def test_a_mention_is_answered(fake):
    ts = await fake.say("U1", "C1", "{bot} " + asked(7))
    await exactly(fake, "C1", ts, right(asked(7)))
    assert all(ack.status == 200 for ack in fake.acks)


async def test_retries_are_answered_once(fake):
    fake.faults.drop_acks = 2
    ts = await fake.say("U2", "D2", asked(6))
    await exactly(fake, "D2", ts, right(asked(6)))
    await quiet(fake)
    assert len(fake.thread("D2", ts)) == 1


async def test_commands_and_buttons_work(fake):
    ack = await fake.command("U3", "C3", "/chat", asked(4_000, step_s=0.02))
    assert "On it" in ack.payload["text"]
    message = await begun(fake, "C3", None)
    assert (await fake.press("U3", message, "Stop")).ok
    await fake.wait(lambda: message.body.endswith("Stopped."), "the end")


async def test_wrong_flags_come_back_to_the_modal(fake):
    ack = await fake.command("U4", "C4", "/imagine", "a fox --n 12")
    assert "1 to 8" in ack.payload["text"]


async def test_the_platform_can_verify_the_address(fake):
    body = json.dumps({"type": "url_verification", "token": "x", "challenge": "3eZbrw1aBm2rZgRNFdxV"})
    status, answer = await fake.delivery.post_raw(body, JSON | signed(body))
    assert status == 200
    assert answer in ({"challenge": "3eZbrw1aBm2rZgRNFdxV"}, "3eZbrw1aBm2rZgRNFdxV")


def _event(fake: FakeWorkspace, text: str) -> tuple[str, str]:
    """An event's body, as somebody would forge it, and the ts it speaks of."""
    ts = fake.ts()
    fake.channel("D5")
    event = {"type": "message", "channel": "D5", "channel_type": "im", "user": "U5", "text": text, "ts": ts}
    return json.dumps(fake.envelope(event)), ts


@pytest.mark.parametrize(
    "forge",
    [
        lambda body: {},
        lambda body: {"X-Slack-Request-Timestamp": str(int(time.time()))},
        lambda body: {**signed(body), "X-Slack-Signature": "v0=" + "0" * 64},
        lambda body: {**signed(body), "X-Slack-Signature": "v0=größe".encode().decode("latin-1")},
        lambda body: signed(body, secret="another"),
        lambda body: signed(body + " "),
        lambda body: signed(body, at_s=time.time() - 301),
        lambda body: signed(body, at_s=time.time() + 301),
        lambda body: {**signed(body), "X-Slack-Request-Timestamp": "soon"},
        lambda body: {**signed(body), "X-Slack-Request-Timestamp": "1" * 40},
    ],
    ids=["unsigned", "half", "forged", "not ascii", "wrong secret", "altered", "old", "early", "no time", "huge time"],
)
async def test_what_the_platform_has_not_signed_is_refused_and_does_nothing(fake, queue, forge):
    body, ts = _event(fake, asked(3))
    status, _ = await fake.delivery.post_raw(body, JSON | forge(body))
    assert status == 401
    await quiet(fake)
    with redis.Redis.from_url(queue.url) as client:
        assert not [key for key in client.scan_iter() if ts.replace(".", "-").encode() in key]
    assert not [each for each in fake.messages if each.bot_id and each.channel == "D5"]


async def test_a_replay_is_refused_and_does_nothing(fake):
    body = urllib.parse.urlencode(
        {"command": "/chat", "text": asked(5), "team_id": "T1", "channel_id": "C6", "user_id": "U6", "user_name": "u6",
         "trigger_id": "1.2.abc", "response_url": f"{fake.web_api.base_url}/response/x", "api_app_id": "A0FAKE"}
    )  # fmt: skip
    fake.channel("C6")
    headers = {"Content-Type": "application/x-www-form-urlencoded", **signed(body)}
    first, _ = await fake.delivery.post_raw(body, headers)
    second, _ = await fake.delivery.post_raw(body, headers)
    assert (first, second) == (200, 401)
    await answers(fake, "C6", None)
    await quiet(fake)
    assert len(fake.thread("C6", None)) == 1


@pytest.mark.kill
async def test_a_killed_front_end_goes_on(slack):
    fake, bot = slack
    question = asked(120, step_s=0.025)
    ts = await fake.say("U7", "C7", "{bot} " + question)
    await begun(fake, "C7", ts)
    bot.kill9()
    await bot.start()
    await exactly(fake, "C7", ts, right(question))
