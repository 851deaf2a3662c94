"""What the processes answer to Prometheus, by real processes; and that rules and dashboards ask for what is there."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest
import redis
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr
from rq.serializers import JSONSerializer

from bots.activity import activity
from bots.delivery.surface import SlowDownError
from bots.discord_bot.outbound import Outbound
from bots.slack_bot.workspaces import Workspaces
from bots.slack_settings import SlackSettings
from tests.fake_guild.rules import Rules as GuildRules
from tests.fake_guild.server import FakeGuild
from tests.fake_guild.world import ALICE
from tests.fake_workspace.server import FakeWorkspace
from tests.jobs import ask, ends, fair_queue, wait_until
from tests.valkey import ValkeyProcess
from tests.worker_processes import Process, children, config, worker
from workers import keys
from workers.fair_queue import FairQueue
from workers.metrics import OTHER_TENANTS, REGISTRY, TenantLabels
from workers.queue_metrics import ServerCollector
from workers.settings import MetricsSettings


def get(url: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=10) as response:  # noqa: S310 - always this machine's
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def samples(url: str) -> dict[tuple[str, ...], float]:
    """Name and sorted values of the labels -> value."""
    _, text = get(f"{url}/metrics")
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def announced(data_dir: Path, name: str) -> str:
    """Where a process listens, as Prometheus is told."""
    found: list[Path] = []

    def there() -> bool:
        found[:] = data_dir.glob(f"metrics/{name}-*.json")
        return bool(found)

    wait_until(there, what=f"for {name} to say where it listens")
    (entry,) = json.loads(found[0].read_text())
    assert entry["labels"] == {"process": name}
    return f"http://{entry['targets'][0]}"


@contextmanager
def measured_worker(server: ValkeyProcess, data_dir: Path) -> Iterator[tuple[Process, str]]:
    rules_only = dict.fromkeys(("text_model", "injection_model", "image_model", "record_url"), "none")
    configured = config(server.url, capacity=7, moderation=rules_only).model_copy(
        update={
            "data_dir": data_dir,
            "metrics": MetricsSettings(port=0),
            "log_format": "json",
            "factory": "tests.engines:build_moderated",
        }
    )
    with worker(configured) as process:
        url = announced(data_dir, "chat-worker")
        wait_until(lambda: get(f"{url}/readyz")[0] == 200, what="for the engine")
        yield process, url


def test_a_worker_counts_what_it_did(server: ValkeyProcess, redis_client: redis.Redis, tmp_path: Path) -> None:
    queue = fair_queue(redis_client)
    with measured_worker(server, tmp_path) as (process, url):
        assert get(f"{url}/healthz")[0] == 200
        assert get(f"{url}/nothing")[0] == 404
        ids = [ask(queue, "k1", tokens=4), ask(queue, "k2", tokens=5), ask(queue, "k3", refuse="refused")]
        ids.append(ask(queue, "k4", refuse="refused", note="my card is 4111 1111 1111 1111"))
        wait_until(lambda: set(ids) <= set(ends(redis_client)))
        wait_until(lambda: samples(url)["palaver_jobs_total", "chat", "refused"] == 2)
        found = samples(url)
        assert found["palaver_jobs_total", "chat", "finished"] == 2
        assert found["palaver_tokens_total", "chat", "completion"] == 9
        assert found["palaver_moderation_verdicts_total", "mask", "personal_data"] == 1, "of the engine's process"
        assert found["palaver_batch_slots", "chat"] == 7
        assert found["palaver_batch_in_flight", "chat"] == 0
        for histogram in ("palaver_queue_wait_seconds", "palaver_first_token_seconds", "palaver_job_seconds"):
            assert found[f"{histogram}_count", "chat"] == 2
        assert found["palaver_tenant_gpu_seconds_total", "chat", "t1"] >= 0
        (engine,) = children(process.pid)
        os.kill(engine, signal.SIGKILL)
        wait_until(lambda: samples(url)["palaver_engine_restarts_total", "chat"] == 1)
        process.signal(signal.SIGTERM)
        assert process.wait() == 0
    assert not list(tmp_path.glob("metrics/*.json"))


async def test_a_platforms_429_are_counted() -> None:
    def counted(platform: str) -> float:
        return REGISTRY.get_sample_value("palaver_platform_429_total", {"platform": platform}) or 0.0

    before = counted("discord"), counted("slack")
    async with FakeGuild(GuildRules(per_window=2)) as guild:
        address = f"{guild.api_url}/channels/{guild.direct(ALICE)}/messages"
        async with aiohttp.ClientSession(trace_configs=[Outbound().trace()]) as session:
            said = [await session.post(address, json={"content": "hello"}) for _ in range(5)]
    assert counted("discord") - before[0] == [each.status for each in said].count(429) > 0
    async with FakeWorkspace() as workspace:
        settings = SlackSettings(
            api_base_url=workspace.api_url, bot_token=SecretStr(next(iter(workspace.teams.values())).bot_token)
        )
        async with Workspaces(settings) as workspaces:
            await workspaces.connect()
            workspace.faults.limited["chat.postMessage"] = 2
            for _ in range(2):
                with pytest.raises(SlowDownError):
                    await workspaces.all()[0].call("chat.postMessage", channel="C1", text="hello")
    assert counted("slack") - before[1] == 2


def test_tenant_labels_are_bounded() -> None:
    labels = TenantLabels(most=2)
    assert [labels.of(f"t{i}") for i in range(5)] == ["t0", "t1", *[OTHER_TENANTS] * 3]
    assert labels.of("t1") == "t1"


def test_further_models_and_foreign_entries(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    further = FairQueue(keys.queue("chat", "org/other"), connection=redis_client, serializer=JSONSerializer)
    ask(fair_queue(redis_client), "k1")
    ask(further, "k2", tenant="t2")
    redis_client.hset(keys.workers(), mapping={"foreign": "[1]", "odd": '{"at_s": "x"}'})
    found = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in ServerCollector(redis_client).collect()
        for sample in family.samples
    }
    assert found["palaver_queue_jobs", "chat"] == 2
    assert found["palaver_queue_jobs", "image"] == 0
    assert found["palaver_workers", "chat", "ready"] == 0
    moment = activity(redis_client, embedded=False)
    assert [(queue.kind, queue.queued) for queue in moment.queues] == [("chat", 2), ("image", 0), ("answer", 0)]
