"""Fixtures that every test may ask for: real Valkey servers, never a mocked Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis
import redis.asyncio

from tests.postgres import PostgresProcess
from tests.valkey import ValkeyProcess

# Machines are busy: an example may take as long as it needs, and a hang ends by pytest's timeout.
hypothesis.settings.register_profile("palaver", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("palaver")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests of real processes and clocks on a busy machine: one that fails runs once more, and is reported as rerun."""
    for item in items:
        if {"integration", "acceptance"} & set(item.path.parts):
            item.add_marker(pytest.mark.flaky(reruns=1))
    limits_s: dict[Path, float] = {}
    for item in items:
        limits_s[item.path] = max(limits_s.get(item.path, 0.0), _time_limit_s(item))
    # The longest files begin first, so that none is waited for alone at the end.
    items.sort(key=lambda item: limits_s[item.path], reverse=True)


def _time_limit_s(item: pytest.Item) -> float:
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0.0


@pytest.fixture(scope="session")
def server() -> Iterator[ValkeyProcess]:
    """The session's server, in memory only; under pytest-xdist each worker has its own."""
    process = ValkeyProcess(persist=False).start()
    yield process
    process.remove()


@pytest.fixture(autouse=True)
def _empty_server(request: pytest.FixtureRequest) -> None:
    """Every test that uses the session's server finds it empty."""
    if "server" in request.fixturenames:
        process: ValkeyProcess = request.getfixturevalue("server")
        with redis.Redis.from_url(process.url) as client:
            client.flushall()


@pytest.fixture
def redis_client(server: ValkeyProcess) -> Iterator[redis.Redis]:
    """A client of the session's server that returns bytes, as rq needs it."""
    with redis.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
async def async_redis(server: ValkeyProcess) -> AsyncIterator[redis.asyncio.Redis]:
    """An asynchronous client of the session's server that returns bytes."""
    async with redis.asyncio.Redis.from_url(server.url) as client:
        yield client


@pytest.fixture
def restartable_server() -> Iterator[ValkeyProcess]:
    """A server of this test alone, with an append-only file: ``kill9()`` it, and ``start()`` it at the same address."""
    process = ValkeyProcess(persist=True).start()
    yield process
    process.remove()


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresProcess]:
    """The session's PostgreSQL; skips where there is none."""
    process = PostgresProcess()
    yield process
    process.remove()


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def knowledge_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """An empty store of knowledge in each database."""
    if request.param == "postgresql":
        server: PostgresProcess = request.getfixturevalue("postgres")
        return server.database()
    return f"sqlite:///{tmp_path_factory.mktemp('knowledge') / 'k.sqlite'}"
