"""Accounts of tenants and users: what was answered is counted once, and nothing else is."""

from __future__ import annotations

import time

import pytest
import redis
import redis.asyncio

from tests.queue_ends import USAGE, Worker, client_of
from tests.requests import chat_request
from tests.valkey import ValkeyProcess
from workers import keys
from workers.contract import Failure
from workers.settlement import Answered, Broken, GivenBack, Stopped
from workers.usage import Answer, Spent, forget, periods, record, usage


async def test_answers_are_counted_for_tenant_and_user_by_kind(
    server: ValkeyProcess, redis_client: redis.Redis, async_redis: redis.asyncio.Redis
) -> None:
    worker = Worker(redis_client)
    async with client_of(server.url) as client:
        for key, user in (("k1", "ann"), ("k2", "bob"), ("k3", "ann")):
            await client.submit(chat_request(key, user=user))
            worker.end(worker.start(), Answered("stop", USAGE | {"gpu_s": 0.25}))
        found = await client.usage("t1", "ann")
        assert found.tenant.day.by_kind == {"chat": Spent(3, 0.75)}
        assert found.user.day.by_kind == {"chat": Spent(2, 0.5)}
        assert found.user.month.total == Spent(2, 0.5)
        assert (found.user.day.name, found.user.month.name) == periods(time.time())
        assert (await client.usage("t2", "ann")).tenant.month.total == Spent()
    for key in redis_client.scan_iter(keys.usage("*", None, "*")):
        assert redis_client.ttl(key) > 0


@pytest.mark.parametrize(
    "outcome", [Stopped(), GivenBack(), Broken(Failure(code="x", message="It broke.")), GivenBack(crash=True)]
)
async def test_what_was_not_answered_is_not_counted(
    server: ValkeyProcess, redis_client: redis.Redis, outcome: Stopped | GivenBack | Broken
) -> None:
    worker = Worker(redis_client)
    async with client_of(server.url) as client:
        await client.submit(chat_request())
        worker.end(worker.start(), outcome)
        assert (await client.usage("t1", "u1")).tenant.day.total == Spent()


async def test_an_end_that_is_written_twice_counts_once(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    worker = Worker(redis_client)
    async with client_of(server.url) as client:
        await client.submit(chat_request())
        slot = worker.start()
        assert worker.end(slot)
        assert not worker.end(slot), "the fence holds"
        assert (await client.usage("t1", "u1")).user.day.total.jobs == 1


async def test_kinds_add_up(redis_client: redis.Redis, async_redis: redis.asyncio.Redis) -> None:
    record(redis_client, "chat", [Answer("t__0", "t", "u", 0.5)], time.time())
    record(redis_client, "image", [Answer("t__0", "t", "u", 8.0), Answer("t__0", "t", "v", 4.0)], time.time())
    found = await usage(async_redis, "t", "u")
    assert found.tenant.day.by_kind == {"chat": Spent(1, 0.5), "image": Spent(2, 12.0)}
    assert found.user.day.total == Spent(2, 8.5)


async def test_a_user_can_be_forgotten(redis_client: redis.Redis, async_redis: redis.asyncio.Redis) -> None:
    now_s = time.time()
    for ago_days in (0, 1, 7):
        record(
            redis_client,
            "chat",
            [Answer("t__0", "t", "u", 1.0), Answer("t__0", "t", "v", 1.0)],
            now_s - ago_days * 86_400,
        )
    oldest_month = periods(now_s - 390 * 86_400)[1]
    redis_client.hset(keys.usage("t", "u", oldest_month), "chat:jobs", 1)
    assert await forget(async_redis, "t", "u") == 3
    current = {keys.usage("t", "u", period).encode() for period in periods(now_s)}
    left = list(redis_client.scan_iter(keys.usage("t", "u", "*")))
    assert set(left) <= current
    assert {field for key in left for field in redis_client.hkeys(key)} == {b"gpu_us"}
    assert (await usage(async_redis, "t", "u")).user.month.by_kind == {}
    assert (await usage(async_redis, "t", "v")).user.day.total == Spent(1, 1.0)
    assert (await usage(async_redis, "t", "u")).tenant.day.total == Spent(2, 2.0)


def test_days_and_months_are_of_utc() -> None:
    assert periods(0.0) == ("1970-01-01", "1970-01")
    assert periods(1_700_000_000.9) == ("2023-11-14", "2023-11")
