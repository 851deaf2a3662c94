"""The Slack front-end over HTTP, real process: whatever is signed is answered below 500, and it goes on."""

from __future__ import annotations

import asyncio
import json
import urllib.parse
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from tests.bot_process import running
from tests.fake_workspace.delivery import signed
from tests.fuzz.inputs import examples, garbage, json_values, mutated
from tests.valkey import ValkeyProcess

pytestmark = [pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def slack():
    server = ValkeyProcess(persist=False).start()
    async with running(server.url, http=True, SLACK_APP_TOKEN="", PALAVER_LOG_LEVEL="info") as pair:
        yield pair
    server.remove()


def envelope(fake: Any) -> dict[str, Any]:
    event = {
        "type": "message", "channel": "D1", "channel_type": "im", "user": "U1", "text": "hello", "ts": "1.000100",
        "event_ts": "1.000100", "files": [{"id": "F1", "name": "a.txt", "size": 3, "url_private": "http://127.0.0.1:1/x"}],
    }  # fmt: skip
    return fake.envelope(event)


def interaction(fake: Any) -> dict[str, Any]:
    action = {"action_id": "p:stop:slack-T1__k", "block_id": "b", "type": "button", "value": "x", "action_ts": "1.1"}
    return fake._interaction(
        "block_actions", "U1", "T1", container={"type": "message", "message_ts": "1.1", "channel_id": "C1"},
        channel={"id": "C1", "name": "c"}, message={"ts": "1.1", "text": "x"}, state={"values": {}}, actions=[action],
    )  # fmt: skip


FORM = {
    "token": "x", "team_id": "T1", "channel_id": "C1", "user_id": "U1", "command": "/imagine", "text": "a cat --n 4",
    "api_app_id": "A0FAKE", "trigger_id": "1.t", }  # fmt: skip


async def answered(slack: Any, body: str, content_type: str) -> None:
    fake, bot = slack
    headers = {"Content-Type": content_type, **signed(body)}
    status, said = await fake.delivery.post_raw(body, headers, deadline_s=20.0)
    assert 200 <= status < 500, f"{status} {said!r} to {body[:2_000]!r}; {bot.read_log()[-600:]}"


def check(loop_task: Any, count: int, strategy: st.SearchStrategy[Any]) -> Any:
    """Examples as one list each, so that one event loop serves them all."""
    found: list[Any] = []

    @examples(count)
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    collect()
    return asyncio.gather(*(loop_task(value) for value in found))


@pytest.mark.parametrize("kind", ["event", "interaction", "command"])
async def test_any_payload_is_answered(slack, kind):
    fake, bot = slack
    json_type, form_type = "application/json", "application/x-www-form-urlencoded"
    gate = asyncio.Semaphore(8)

    async def send(value: Any) -> None:
        async with gate:
            if kind == "event":
                await answered(slack, json.dumps(value), json_type)
            elif kind == "interaction":
                await answered(slack, urllib.parse.urlencode({"payload": json.dumps(value)}), form_type)
            else:
                fields = {str(name): str(field) for name, field in value.items()} if isinstance(value, dict) else {}
                await answered(slack, urllib.parse.urlencode(fields, errors="surrogatepass"), form_type)

    valid = {
        "event": envelope(fake),
        "interaction": interaction(fake),
        "command": FORM | {"response_url": f"{fake.web_api.base_url}/response/r"},
    }[kind]
    await check(send, 40, mutated(valid))
    await check(send, 15, json_values)
    assert bot._process.poll() is None


async def test_any_bytes_are_answered(slack):
    _, bot = slack

    async def send(value: tuple[bytes, str]) -> None:
        body, content_type = value
        await answered(slack, body.decode("utf-8", "replace"), content_type)

    kinds = st.sampled_from(
        ["application/json", "application/x-www-form-urlencoded", "text/plain", "multipart/form-data"]
    )
    await check(send, 40, st.tuples(garbage.filter(lambda raw: len(raw) < 10_000), kinds))
    assert bot._process.poll() is None
    assert "Traceback" not in bot.read_log(), bot.read_log()[-3_000:]
