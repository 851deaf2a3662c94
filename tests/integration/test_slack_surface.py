"""How an answer's first message is found again that a process has begun and recorded nowhere."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis.asyncio
from pydantic import SecretStr

from bots.delivery.content import View
from bots.delivery.ledger import Ledger
from bots.delivery.surface import SlowDownError
from bots.slack_bot.claims import Claims
from bots.slack_bot.origin import Origin
from bots.slack_bot.outbound import Outbound
from bots.slack_bot.private_surfaces import ResponseUrls
from bots.slack_bot.surface import ChannelSurface
from bots.slack_bot.target import Target
from bots.slack_bot.uploads import Uploads
from bots.slack_bot.whisper import Whisper
from bots.slack_bot.workspaces import Workspaces
from bots.slack_settings import SlackSettings
from tests.fake_workspace.server import FakeWorkspace
from workers.errors import RedisUnavailableError

JOB = "slack-T1__k1"


async def test_a_stream_that_was_begun_and_not_recorded_is_found_again(
    async_redis: redis.asyncio.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims, ledger = Claims(async_redis, 600), Ledger(async_redis, "slack")
    async with FakeWorkspace() as fake:
        token = next(iter(fake.teams.values())).bot_token
        async with Workspaces(SlackSettings(api_base_url=fake.api_url, bot_token=SecretStr(token))) as workspaces:
            await workspaces.connect()
            workspace, origin = workspaces.all()[0], Origin(fake.api_url)
            thread = await fake.say("U1", "D1", "a question")
            assert await Whisper(ResponseUrls(workspaces.session, origin)).to(workspace, "D1", "U1", "a notice", thread)

            def surface() -> ChannelSurface:
                uploads = Uploads(workspaces.session, origin)
                target = Target(team="T1", enterprise="", channel="D1", user="U1", thread=thread)
                return ChannelSurface(workspace, target, JOB, Outbound(), claims, uploads, 60.0)

            async def away(*_: str) -> None:
                raise RedisUnavailableError("gone")

            place, view = await ledger.reserve(JOB, 0), View("The answer grows")
            first = surface()
            with monkeypatch.context() as patch:
                patch.setattr(claims, "claim", away)
                with pytest.raises(RedisUnavailableError):
                    await first.post(view, place)
            place = replace(place, reserved_before=True)
            with pytest.raises(SlowDownError):  # a waiting line says nothing about which message it belongs to
                await surface().post(View("Next in line.", waiting=True), place)
            assert await first.post(view, place), "who began it knows it without looking"
            await surface().post(replace(view, text="The answer grows longer"), place)
            assert sorted(each.body for each in fake.thread("D1", thread)) == ["The answer grows longer", "a notice"]
