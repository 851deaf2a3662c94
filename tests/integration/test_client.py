from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from rq.job import Job, JobStatus
from rq.registry import CanceledJobRegistry
from rq.serializers import JSONSerializer

from tests.queue_ends import GENEROUS, TIGHT, Reader, Worker, client_of, submitted, told
from tests.requests import chat_request
from tests.valkey import ValkeyProcess
from workers import keys
from workers.client import Client, Submitted
from workers.errors import JobNotFoundError, NotAllowedError, RefusedError
from workers.fair_queue import FairQueue
from workers.metrics import REGISTRY
from workers.outbox import OutboxJob
from workers.settings import LimitSettings, Rate, WorkerSettings
from workers.settlement import Stopped


@pytest.fixture
async def client(server: ValkeyProcess) -> AsyncIterator[Client]:
    async with client_of(server.url) as made:
        yield made


@pytest.fixture
def worker(redis_client: redis.Redis) -> Worker:
    return Worker(redis_client)


# Submitting


async def test_a_submitted_job_is_a_stock_rq_job_without_the_prompt_in_its_description(
    client: Client, redis_client: redis.Redis
) -> None:
    request = chat_request(prompt="a secret prompt", timeout_s=12.5)
    assert await client.submit(request) == Submitted("t1__k1", duplicate=False)
    job = Job.fetch("t1__k1", connection=redis_client, serializer=JSONSerializer)
    assert job.func_name == "palaver.chat"
    assert job.timeout == 13
    assert job.retries_left == WorkerSettings().max_attempts - 1
    assert "secret" not in (job.description or "")
    assert OutboxJob.fetch("t1__k1", connection=redis_client, serializer=JSONSerializer).request == request


async def test_the_same_key_makes_one_job_and_is_charged_once(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    async with client_of(server.url, TIGHT) as client:
        answers = await asyncio.gather(*(client.submit(chat_request()) for _ in range(20)))
        assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 19
        assert FairQueue("chat", connection=redis_client).count == 1
        await client.submit(chat_request("k2"))
        with pytest.raises(RefusedError, match="user limit") as refusal:
            await client.submit(chat_request("k3"))
        assert refusal.value.limit == "user"
        assert 0 < refusal.value.retry_after_s <= 60
        assert (await client.submit(chat_request())).duplicate


async def test_a_crash_between_admission_and_enqueue_heals_when_submitted_again(
    server: ValkeyProcess, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis
) -> None:
    async with client_of(server.url, TIGHT) as client:
        with monkeypatch.context() as patch:
            patch.setattr(FairQueue, "enqueue_call", crash)
            with pytest.raises(SystemError):
                await client.submit(chat_request())
        assert FairQueue("chat", connection=redis_client).count == 0
        assert await client.submit(chat_request()) == Submitted("t1__k1", duplicate=False)
        assert FairQueue("chat", connection=redis_client).count == 1
        await client.submit(chat_request("k2"))  # the burst of 2 was charged once for the first


def crash(*_: object, **__: object) -> None:
    raise SystemError("killed")


async def test_an_answered_request_is_not_answered_again_though_rq_has_dropped_the_job(
    client: Client, worker: Worker, redis_client: redis.Redis
) -> None:
    job_id = await submitted(client)
    slot = worker.start()
    worker.say(slot, "the answer")
    worker.end(slot)
    redis_client.delete(OutboxJob.key_for(job_id))
    assert await client.submit(chat_request()) == Submitted(job_id, duplicate=True)
    assert worker.queue.count == 0
    reader = Reader(client, job_id)
    assert (await reader.end()).type == "finished"
    assert reader.text == "the answer"


async def test_users_channels_and_tenants_have_limits_of_their_own(server: ValkeyProcess) -> None:
    for scope, same, other in (
        ("tenant", {"tenant": "t1"}, {"tenant": "t2"}),
        ("channel", {"channel": "c1"}, {"channel": "c2"}),
        ("user", {"user": "u1"}, {"user": "u2"}),
    ):
        limits = GENEROUS.model_copy(update={scope: Rate(per_minute=1, burst=1)})
        async with client_of(server.url, limits) as client:
            await client.submit(chat_request(f"{scope}-1", **same))
            with pytest.raises(RefusedError) as refusal:
                await client.submit(chat_request(f"{scope}-2", **same))
            assert refusal.value.limit == scope
            assert REGISTRY.get_sample_value("palaver_admissions_total", {"kind": "chat", "outcome": scope})
            await client.submit(chat_request(f"{scope}-3", **other))
        with redis.Redis.from_url(server.url) as connection:
            connection.flushall()


async def test_a_limit_with_burst_0_is_off(server: ValkeyProcess) -> None:
    off = LimitSettings(**{scope: Rate(per_minute=1, burst=0) for scope in ("tenant", "channel", "user")})
    async with client_of(server.url, off) as client:
        for number in range(5):
            await client.submit(chat_request(f"k{number}"))


# Cancelling


async def test_a_queued_job_is_cancelled_at_once_and_refunded(
    server: ValkeyProcess, worker: Worker, redis_client: redis.Redis
) -> None:
    async with client_of(server.url, TIGHT) as client:
        job_id = await submitted(client)
        reader = Reader(client, job_id)
        await client.submit(chat_request("k2"))
        assert await client.cancel(job_id, "u1") == "cancelled"
        assert (await reader.end()).type == "cancelled"
        assert told(redis_client) == ["cancelled"]
        assert worker.start().job.id == "t1__k2"
        assert worker.intake.take(1).slots == []
        await client.submit(chat_request("k3"))  # there is room for one again, and only for one
        with pytest.raises(RefusedError):
            await client.submit(chat_request("k4"))
        assert await client.cancel(job_id, "u1") == "ended"
        assert told(redis_client).count("cancelled") == 1


async def test_cancelling_leaves_nothing_behind_for_ever(client: Client, redis_client: redis.Redis) -> None:
    job_id = await submitted(client)
    await client.cancel(job_id, "u1")
    assert redis_client.ttl(OutboxJob.key_for(job_id)) > 0
    assert redis_client.ttl(keys.live(job_id)) > 0
    assert FairQueue("chat", connection=redis_client).count == 0
    assert CanceledJobRegistry("chat", connection=redis_client).get_job_ids() == [job_id]


async def test_a_running_jobs_worker_is_told_twice_over(
    client: Client, worker: Worker, redis_client: redis.Redis
) -> None:
    job_id = await submitted(client)
    slot = worker.start()
    with redis_client.pubsub(ignore_subscribe_messages=True) as pubsub:
        pubsub.subscribe("rq:pubsub:w1")
        pubsub.get_message(timeout=5.0)
        assert await client.cancel(job_id, "u1") == "stopping"
        message = pubsub.get_message(timeout=5.0)
    assert message["data"] == b'{"command": "stop-job", "job_id": "t1__k1"}'
    assert redis_client.ttl(keys.cancel(job_id)) > 0
    worker.say(slot, "so far")
    assert worker.end(slot, Stopped())
    reader = Reader(client, job_id)
    assert (await reader.end()).type == "cancelled"
    assert reader.text == "so far"
    assert told(redis_client) == ["started", "cancelled"]


async def test_only_the_owner_or_a_moderator_may_cancel(client: Client, redis_client: redis.Redis) -> None:
    job_id = await submitted(client)
    with pytest.raises(NotAllowedError):
        await client.cancel(job_id, "u2")
    assert Job.fetch(job_id, connection=redis_client, serializer=JSONSerializer).get_status() == JobStatus.QUEUED
    assert await client.cancel(job_id, "u2", moderator=True) == "cancelled"


async def test_what_does_not_exist_cannot_be_cancelled(client: Client) -> None:
    for job_id in ("t1__unknown", "not a job id; DEL *"):
        with pytest.raises(JobNotFoundError):
            await client.cancel(job_id, "u1")


async def test_a_finished_job_cannot_be_cancelled(client: Client, worker: Worker) -> None:
    job_id = await submitted(client)
    worker.end(worker.start())
    assert await client.cancel(job_id, "u1") == "ended"


async def test_a_job_that_starts_while_it_is_cancelled_ends_exactly_once(
    client: Client, worker: Worker, redis_client: redis.Redis
) -> None:
    outcomes = set()
    for number in range(40):
        request = chat_request(f"race-{number}")
        job_id = await submitted(client, request)
        cancelling = asyncio.create_task(client.cancel(job_id, "u1"))
        taking = asyncio.create_task(asyncio.to_thread(worker.intake.take, 1))
        outcome, taken = await asyncio.gather(cancelling, taking)
        outcomes.add(outcome)
        for slot in taken.slots:
            assert outcome == "stopping"
            assert worker.end(slot, Stopped())
        for ended in taken.ended:
            worker.settlement.settle([ended])
        reader = Reader(client, job_id)
        assert (await reader.end()).type == "cancelled"
        assert told(redis_client).count("cancelled") == number + 1
    assert outcomes <= {"cancelled", "stopping"}


async def test_an_end_and_a_cancel_at_the_same_moment_make_one_terminal_event(
    client: Client, worker: Worker, redis_client: redis.Redis
) -> None:
    for number in range(20):
        job_id = await submitted(client, chat_request(f"race-{number}"))
        slot = worker.start()
        await asyncio.gather(client.cancel(job_id, "u1"), asyncio.to_thread(worker.end, slot))
        assert (await Reader(client, job_id).end()).type == "finished"
    assert told(redis_client).count("finished") == 20
    assert "cancelled" not in told(redis_client)


# Position


async def test_position_of_queued_running_and_unknown_jobs(client: Client, worker: Worker) -> None:
    first, second = await submitted(client, chat_request("k1")), await submitted(client, chat_request("k2"))
    place = await client.position(second)
    assert place is not None
    assert place.ahead == 1
    worker.start()
    assert await client.position(first) is None
    assert await client.position("t1__unknown") is None
