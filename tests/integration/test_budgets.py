"""Budgets in GPU-seconds: reserved at admission, replaced by what was used, given back where nothing was."""

from __future__ import annotations

import asyncio
import json
import math
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import redis
import redis.asyncio

from tests.queue_ends import GENEROUS, USAGE, Worker, client_of
from tests.requests import chat_request
from tests.valkey import ValkeyProcess
from workers import keys
from workers.admission import refund_unqueued
from workers.budgets import budgets_of
from workers.client import Client
from workers.contract import Failure
from workers.errors import RedisUnavailableError, RefusedError
from workers.outbox import QUARANTINED
from workers.settings import BudgetSettings, Rate
from workers.settlement import Answered, Broken, GivenBack, Outcome, Stopped
from workers.usage import top_up

SETTINGS = BudgetSettings(user_day_gpu_s=10, tenant_month_gpu_s=25)


@pytest.fixture
async def client(server: ValkeyProcess) -> AsyncIterator[Client]:
    async with client_of(server.url, budgets=SETTINGS) as made:
        yield made


@pytest.fixture
def worker(redis_client: redis.Redis) -> Worker:
    return Worker(redis_client)


async def ask(client: Client, key: str, user: str = "u1", gpu_s: float = 4) -> str:
    return (await client.submit(chat_request(key, user=user, cost_gpu_s=gpu_s))).job_id


async def left(client: Client, user: str = "u1") -> tuple[float, float]:
    """Of the user's day and of the tenant's month."""
    found = await client.usage("t1", user)
    return found.user.day.left_gpu_s, found.tenant.month.left_gpu_s


async def test_estimates_are_reserved_and_what_does_not_fit_is_refused(client: Client) -> None:
    await ask(client, "k1")
    await ask(client, "k2")
    assert await left(client) == (2, 17)
    with pytest.raises(RefusedError, match=r"user's budget of 10 GPU-seconds a day has 2.0 left.*4.0.*tomorrow") as no:
        await ask(client, "k3")
    assert no.value.limit == "user budget"
    assert no.value.left_gpu_s == 2
    assert 0 < no.value.retry_after_s <= 86_400
    await ask(client, "k3", gpu_s=2)  # the smaller one that was offered
    await ask(client, "k4", user="u2")
    assert await left(client) == (0, 11)
    assert await left(client, "u2") == (6, 11)


async def test_the_tenants_budget_is_everybodys(client: Client) -> None:
    for user in range(6):
        await ask(client, f"k{user}", user=f"u{user}")
    with pytest.raises(
        RefusedError, match=r"tenant's budget of 25 GPU-seconds a month has 1\.0 left.*next month"
    ) as no:
        await ask(client, "k9", user="u9")
    assert 0 < no.value.retry_after_s <= 31 * 86_400
    assert await left(client, "u9") == (10, 1), "nothing is charged by a refusal"


async def test_all_limits_or_none_are_charged(server: ValkeyProcess) -> None:
    tight = GENEROUS.model_copy(update={"user": Rate(per_minute=1, burst=1)})
    async with client_of(server.url, tight, budgets=SETTINGS) as client:
        await ask(client, "k1")
        with pytest.raises(RefusedError, match="user limit"):
            await ask(client, "k2")
        assert await left(client) == (6, 21)
    async with client_of(server.url, tight, budgets=SETTINGS) as client:
        with pytest.raises(RefusedError, match="budget"):
            await ask(client, "k3", user="u2", gpu_s=11)
        await ask(client, "k4", user="u2")  # the rate of 1 was not charged


async def test_of_many_at_once_no_more_than_fit_are_admitted(client: Client) -> None:
    replies = await asyncio.gather(*(ask(client, f"k{number}") for number in range(20)), return_exceptions=True)
    assert sum(isinstance(reply, str) for reply in replies) == 2
    assert await left(client) == (2, 17)


async def test_the_real_cost_replaces_the_estimate(client: Client, worker: Worker) -> None:
    await ask(client, "k1")
    await ask(client, "k2")
    worker.end(worker.start(), Answered("stop", USAGE | {"gpu_s": 1.5}))
    assert await left(client) == (10 - 1.5 - 4, 25 - 1.5 - 4)
    worker.end(worker.start(), Answered("stop", USAGE | {"gpu_s": 9.0}))
    assert await left(client) == (0, 25 - 10.5), "more than the estimate is charged too"


@pytest.mark.parametrize(
    "outcome",
    [
        Stopped(),
        Broken(Failure(code="timeout", message="Too long.")),
        Broken(Failure(code="refused", message="No."), refused=True),
    ],
)
async def test_what_was_not_answered_is_given_back(client: Client, worker: Worker, outcome: Outcome) -> None:
    await ask(client, "k1")
    worker.end(worker.start(), outcome)
    assert await left(client) == (10, 25)


async def test_a_repeated_attempt_keeps_its_reservation(client: Client, worker: Worker) -> None:
    await ask(client, "k1")
    worker.end(worker.start(), GivenBack(crash=True))
    assert await left(client) == (6, 21)
    worker.end(worker.start(), Answered("stop", USAGE | {"gpu_s": 3.0}))
    assert await left(client) == (7, 22)


async def test_a_queued_job_that_is_cancelled_gives_back(client: Client) -> None:
    await client.cancel(await ask(client, "k1"), "u1")
    assert await left(client) == (10, 25)


async def test_a_budget_that_is_set_later_counts_what_was_used_before(server: ValkeyProcess, worker: Worker) -> None:
    async with client_of(server.url) as without:
        await ask(without, "k1")
        worker.end(worker.start(), Answered("stop", USAGE | {"gpu_s": 8.0}))
        assert (await left(without)) == (math.inf, math.inf)
    async with client_of(server.url, budgets=SETTINGS) as client:
        with pytest.raises(RefusedError, match=r"has 2\.0 left"):
            await ask(client, "k2")


async def test_a_top_up_raises_this_period(client: Client, async_redis: redis.asyncio.Redis) -> None:
    await ask(client, "k1", gpu_s=10)
    await top_up(async_redis, "t1", "u1", 5.0, "day")
    await ask(client, "k2", gpu_s=5)
    assert await left(client) == (0, 10)


async def test_palaver_usage_shows_what_is_used_and_left(
    client: Client, worker: Worker, server: ValkeyProcess, tmp_path: Path
) -> None:
    await ask(client, "k1")
    await ask(client, "k2")
    worker.end(worker.start(), Answered("stop", USAGE | {"gpu_s": 1.5}))
    environment = {
        **os.environ,
        "REDIS_URL": server.url,
        "PALAVER_DATA_DIR": str(tmp_path),
        "PALAVER_BUDGETS__USER_DAY_GPU_S": "10",
    }
    command = [sys.executable, "-m", "bots.cli", "usage", "--tenant", "t1", "--user", "u1"]

    def told(*options: str) -> str:
        done = subprocess.run([*command, *options], env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert "1 chat (1.5 s); 4.0 s reserved; 4.5 of 10 GPU-seconds left" in await asyncio.to_thread(told)
    found = json.loads(await asyncio.to_thread(told, "--json"))
    assert found["user"]["day"]["left_gpu_s"] == 4.5
    assert found["tenant"]["month"]["jobs"] == {"chat": 1}
    assert found["tenant"]["month"]["left_gpu_s"] is None


async def test_accounts_with_reservations_expire(client: Client, redis_client: redis.Redis) -> None:
    await ask(client, "k1")
    accounts = list(redis_client.scan_iter(keys.usage("t1", None, "*")))
    assert len(accounts) == 2
    assert all(0 < redis_client.ttl(account) <= 33 * 86_400 for account in accounts)


def test_without_budgets_admission_has_nothing_more_to_do() -> None:
    assert budgets_of(BudgetSettings(), "t", "u", 1.0, 0.0) == []


def test_periods_end_where_the_next_begins() -> None:
    at_s = datetime(2026, 12, 31, 23, 59, 58, tzinfo=UTC).timestamp()
    assert [budget.ends_in_s for budget in budgets_of(SETTINGS, "t", "u", 1.0, at_s)] == [2, 2]
    at_s = datetime(2026, 2, 1, 12, 0, 0, tzinfo=UTC).timestamp()
    assert [budget.ends_in_s for budget in budgets_of(SETTINGS, "t", "u", 1.0, at_s)] == [43_200, 27 * 86_400 + 43_200]


async def test_a_quarantined_job_keeps_its_charges_but_reserves_nothing(client: Client, worker: Worker) -> None:
    await ask(client, "k1")
    failure = Failure(code=QUARANTINED, message="It crashed the model.")
    worker.end(worker.start(), Broken(failure, crash=True))
    assert await left(client) == (10, 25)
    assert b"limit:" in (worker.connection.get(keys.admission("t1__k1")) or b""), "the rate limits are not given back"


async def test_what_never_reaches_the_queue_is_given_back(
    client: Client, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(request: object, queue: str) -> bool:
        raise redis.ConnectionError("gone")

    await ask(client, "k1")
    monkeypatch.setattr(client, "_enqueue", fails)
    monkeypatch.setattr("workers.admission._UNQUEUED_AT_ONCE", 1)  # of two
    with pytest.raises(RedisUnavailableError):
        await ask(client, "k2")
    assert await left(client) == (2, 17)
    assert refund_unqueued(redis_client) == 0, "it may still come"
    assert refund_unqueued(redis_client, age_s=0) == 1
    assert await left(client) == (6, 21)
    assert refund_unqueued(redis_client, age_s=0) == 0
    monkeypatch.undo()
    await ask(client, "k2")
    assert await left(client) == (2, 17), "asked again, it is charged again"
