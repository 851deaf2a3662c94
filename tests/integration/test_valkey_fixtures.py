from __future__ import annotations

import pytest
import redis
import redis.asyncio

from tests.valkey import ValkeyProcess


@pytest.mark.parametrize("attempt", [1, 2])
async def test_each_test_finds_the_server_empty(
    redis_client: redis.Redis, async_redis: redis.asyncio.Redis, attempt: int
) -> None:
    assert redis_client.dbsize() == 0
    redis_client.set("left-behind", attempt)
    assert await async_redis.get("left-behind") == str(attempt).encode()


def test_a_killed_server_comes_back_with_its_data(restartable_server: ValkeyProcess) -> None:
    with redis.Redis.from_url(restartable_server.url) as client:
        client.set("kept", "yes")
        restartable_server.sync()
        restartable_server.kill9()
        with pytest.raises(redis.ConnectionError):
            client.get("kept")
        restartable_server.start()
        assert client.get("kept") == b"yes"
