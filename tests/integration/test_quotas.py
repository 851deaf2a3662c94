"""What a person may use in a tenant: the operator's ceilings, tiers of roles, what a tenant tightens, top-ups."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bots.conversation import Conversations
from bots.image_prompt import ImagePrompt
from bots.quotas import quota_of
from bots.refusals import TooCostlyError
from bots.service import ChatService, Prompt
from bots.settings import Settings
from bots.tenant_config import TenantConfig, TenantConfigs
from bots.tenant_rules import TenantRules, Whence
from tests.queue_ends import client_of
from tests.valkey import ValkeyProcess
from workers.client import Client
from workers.contract import ChatOptions, ImageOptions, ReplyTo
from workers.errors import RefusedError, SettingsError
from workers.settings import BudgetSettings, TierSettings

STAFF = "123456789012345678"
SETTINGS = Settings(
    budgets=BudgetSettings(tenant_day_gpu_s=100, user_day_gpu_s=3),
    tiers={"helpers": TierSettings(day_gpu_s=5), "staff": TierSettings(day_gpu_s=60, per_minute=600, burst=100)},
)


class FrontEnd:
    """What one front-end process has, on connections of its own."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.configs = TenantConfigs(client.connection)
        self.rules = TenantRules(client.connection, self.configs, SETTINGS)
        self.service = ChatService(client, Conversations(client.connection, SETTINGS.conversation))

    async def ask(self, key: str, roles: tuple[str, ...] = (), tokens: int = 400) -> None:
        options = ChatOptions(max_new_tokens=tokens)
        prompt = Prompt("t", "guild", "c", "u1", key, key, "hello", ReplyTo(front_end="t"), options)
        taken = await self.rules.apply(prompt, Whence(roles=roles))
        assert isinstance(taken, Prompt)
        await self.service.ask(taken)


@pytest.fixture
async def front_ends(server: ValkeyProcess) -> AsyncIterator[tuple[FrontEnd, FrontEnd]]:
    async with (
        client_of(server.url, budgets=SETTINGS.budgets) as one,
        client_of(server.url, budgets=SETTINGS.budgets) as other,
    ):
        yield FrontEnd(one), FrontEnd(other)


async def test_a_roles_tier_has_its_own_budget_and_a_tenant_can_only_tighten(front_ends) -> None:
    one, other = front_ends
    await one.ask("k1")  # about 2 GPU-seconds
    with pytest.raises(RefusedError, match="3 GPU-seconds a day"):
        await one.ask("k2")
    await one.configs.change("guild", "tiers", f"<@&{STAFF}>=staff", await one.rules.ceilings())
    await other.ask("k3", (STAFF,), tokens=1_000)  # another process, at once
    with pytest.raises(RefusedError, match="3 GPU-seconds a day"):
        await other.ask("k4")
    await other.configs.change("guild", "user_day_gpu_s", "8", await other.rules.ceilings())
    with pytest.raises(RefusedError, match="8 GPU-seconds a day"):
        await one.ask("k5", (STAFF,))
    with pytest.raises(RefusedError, match="3 GPU-seconds a day"):
        await one.ask("k6")  # no wish of a tenant's raises what the operator gives
    with pytest.raises(SettingsError, match="tier"):
        await one.configs.change("guild", "tiers", f"<@&{STAFF}>=kings", await one.rules.ceilings())


async def test_the_tenants_own_budget_bounds_every_tier(front_ends) -> None:
    one, _ = front_ends
    await one.configs.change("guild", "tiers", f"<@&{STAFF}>=staff", await one.rules.ceilings())
    quota = await one.rules.quota("guild", (STAFF,))
    assert quota is not None
    assert (quota.tenant_day_gpu_s, quota.user_day_gpu_s, quota.user_per_minute) == (100, 60, 600)


async def test_a_top_up_at_the_command_line_holds_for_running_processes(front_ends, server, tmp_path) -> None:
    one, other = front_ends
    await one.ask("k1")
    with pytest.raises(RefusedError):
        await other.ask("k2")
    environment = {**os.environ, "REDIS_URL": server.url, "PALAVER_DATA_DIR": str(tmp_path)}
    environment["PALAVER_BUDGETS__USER_DAY_GPU_S"] = "3"
    command = [sys.executable, "-m", "bots.cli", "usage", "--tenant", "guild", "--user", "u1", "--top-up", "4"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: ASYNC221 - nothing else runs
    assert "of 7 GPU-seconds left" in done.stdout, done.stderr
    await other.ask("k3")


async def test_a_tenants_own_rate_is_decided_in_the_same_call(front_ends) -> None:
    one, other = front_ends
    await one.configs.set("guild", TenantConfig(user_per_minute=2, tiers={STAFF: "staff"}))
    await one.ask("k1", (STAFF,), tokens=16)
    before = await one.client.usage("guild", "u1")
    with pytest.raises(RefusedError, match="user limit"):
        await other.ask("k2", (STAFF,), tokens=16)
    after = await one.client.usage("guild", "u1")
    assert after.user.day.reserved_gpu_s == before.user.day.reserved_gpu_s, "all limits are charged, or none"


async def test_a_smaller_request_is_offered_near_the_budget(front_ends) -> None:
    one, _ = front_ends
    with pytest.raises(TooCostlyError) as no:
        await one.ask("k1", tokens=1_000)
    assert "enough left for an answer of at most 500 tokens" in str(no.value), "what a terminal shows"
    assert isinstance(no.value.smaller, Prompt)
    assert no.value.smaller.options.max_new_tokens == 500
    await one.service.ask(replace(no.value.smaller, key="k2"))
    with pytest.raises(RefusedError) as last:
        await one.ask("k3", tokens=1_000)
    assert isinstance(last.value, TooCostlyError) == (last.value.left_gpu_s > 0.3)


@pytest.mark.parametrize(
    ("left_gpu_s", "told"), [(2.5, "2 pictures in 20 steps"), (1.2, "1 picture in 20 steps"), (0.6, "1 picture in 10")]
)
async def test_fewer_pictures_are_offered_first_and_then_fewer_steps(server, left_gpu_s, told) -> None:
    async with client_of(server.url, budgets=BudgetSettings(user_day_gpu_s=left_gpu_s)) as client:
        service = ChatService(client, Conversations(client.connection, SETTINGS.conversation))
        options = ImageOptions(n=4, num_inference_steps=20, width_px=512, height_px=512)
        prompt = ImagePrompt("t", "guild", "c", "u1", "k1", "a fox", ReplyTo(front_end="t"), options=options)
        with pytest.raises(TooCostlyError) as no:
            await service.imagine(prompt)
        assert told in no.value.told
        assert isinstance(no.value.smaller, ImagePrompt)
        await service.imagine(no.value.smaller)


def test_nothing_differs_where_nothing_is_decided() -> None:
    assert quota_of(SETTINGS, TenantConfig(tiers={STAFF: "staff"}), "chat", ("1",)) is None
