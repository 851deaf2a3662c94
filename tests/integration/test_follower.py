from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import redis
from rq.serializers import JSONSerializer

from tests.queue_ends import Reader, Worker, client_of, submitted
from tests.requests import chat_request
from tests.valkey import ValkeyProcess
from workers import keys
from workers.client import Client, Queued, Restarted
from workers.contract import Failure
from workers.errors import JobNotFoundError, RedisUnavailableError
from workers.outbox import OutboxJob
from workers.settlement import Broken


@pytest.fixture
async def client(server: ValkeyProcess) -> AsyncIterator[Client]:
    async with client_of(server.url) as made:
        yield made


@pytest.fixture
def worker(redis_client: redis.Redis) -> Worker:
    return Worker(redis_client)


async def test_a_reader_sees_place_text_and_end(client: Client, worker: Worker) -> None:
    await submitted(client, chat_request("k0"))
    job_id = await submitted(client)
    reader = Reader(client, job_id)
    await reader.until(lambda: Queued(position=1) in reader.updates)
    first = worker.start()
    await reader.until(lambda: Queued(position=0) in reader.updates)
    slot = worker.start()
    for text in ("größe ", "東", "京"):
        worker.say(slot, text)
        await reader.until(lambda: bool(reader.text) and reader.text.endswith(text))  # noqa: B023 - awaited at once
    assert worker.end(slot)
    event = await reader.end()
    assert event.type == "finished"
    assert event.usage is not None
    assert event.usage.gpu_s == 0.5
    assert reader.text == "größe 東京"
    assert event.text_bytes == len("größe 東京".encode())
    assert worker.end(first)


async def test_a_late_reader_gets_the_whole_answer_and_the_one_end(client: Client, worker: Worker) -> None:
    job_id = await submitted(client)
    slot = worker.start()
    worker.say(slot, "all of it")
    worker.end(slot)
    for _ in range(2):
        reader = Reader(client, job_id)
        assert (await reader.end()).type == "finished"
        assert reader.text == "all of it"


async def test_characters_cut_between_two_writes_are_told_whole(
    client: Client, worker: Worker, redis_client: redis.Redis
) -> None:
    job_id = await submitted(client)
    slot = worker.start()
    reader = Reader(client, job_id)
    data = "a東b".encode()
    redis_client.setrange(keys.text(slot.id), 0, data[:2])
    await reader.until(lambda: reader.text == "a")
    redis_client.setrange(keys.text(slot.id), 2, data[2:])
    await reader.until(lambda: reader.text == "a東b")
    worker.texts.append(slot.id, "a東b")
    worker.end(slot)
    await reader.end()
    assert reader.text == "a東b"


async def test_a_retry_voids_the_text_so_far(client: Client, worker: Worker) -> None:
    job_id = await submitted(client)
    reader = Reader(client, job_id)
    slot = worker.start()
    worker.say(slot, "half an ans")
    await reader.until(lambda: reader.text == "half an ans")
    worker.end(slot, Broken(Failure(code="oops", message="Once more."), retryable=True))
    slot = worker.start()
    worker.say(slot, "the whole answer")
    worker.end(slot)
    event = await reader.end()
    assert event.attempt == 2
    assert reader.text == "the whole answer"
    assert sum(isinstance(update, Restarted) for update in reader.updates) == 1


async def test_a_failure_reaches_the_reader(client: Client, worker: Worker) -> None:
    job_id = await submitted(client)
    reader = Reader(client, job_id)
    failure = Failure(code="out_of_memory", message="It does not fit.")
    worker.end(worker.start(), Broken(failure))
    event = await reader.end()
    assert (event.type, event.failure) == ("failed", failure)


async def test_many_readers_of_one_job_are_told_the_same(client: Client, worker: Worker) -> None:
    job_id = await submitted(client)
    readers = [Reader(client, job_id) for _ in range(20)]
    slot = worker.start()
    for number in range(30):
        worker.say(slot, f"{number} ")
        await asyncio.sleep(0.002)
    worker.end(slot)
    ends = await asyncio.gather(*(reader.end() for reader in readers))
    assert len({event.model_dump_json() for event in ends}) == 1
    assert {reader.text for reader in readers} == {"".join(f"{number} " for number in range(30))}


async def test_an_unknown_job_cannot_be_followed(client: Client) -> None:
    with pytest.raises(JobNotFoundError):
        await anext(client.follow("t1__unknown"))


async def test_a_job_deleted_under_a_reader_ends_with_an_error(client: Client, redis_client: redis.Redis) -> None:
    job_id = await submitted(client)
    reader = Reader(client, job_id)
    await reader.until(lambda: bool(reader.updates))
    OutboxJob.fetch(job_id, connection=redis_client, serializer=JSONSerializer).delete()
    with pytest.raises(JobNotFoundError):
        await reader.end()


async def test_a_finished_job_whose_text_has_expired_is_not_told_as_an_empty_answer(
    client: Client, worker: Worker, redis_client: redis.Redis
) -> None:
    job_id = await submitted(client)
    slot = worker.start()
    worker.say(slot, "old")
    worker.end(slot)
    redis_client.delete(keys.text(slot.id))
    with pytest.raises(JobNotFoundError, match="expired"):
        await Reader(client, job_id).end()


@pytest.mark.kill
async def test_a_kill_of_redis_in_mid_answer_costs_the_reader_nothing(restartable_server: ValkeyProcess) -> None:
    with redis.Redis.from_url(restartable_server.url) as connection:
        async with client_of(restartable_server.url) as client:
            worker = Worker(connection)
            job_id = await submitted(client)
            reader = Reader(client, job_id)
            slot = worker.start()
            worker.say(slot, "before, 東")
            await reader.until(lambda: reader.text == "before, 東")
            for _ in range(2):
                restartable_server.sync()  # what a worker does about an end that Redis forgot is tested with the worker
                restartable_server.kill9()
                await asyncio.sleep(0.5)
                restartable_server.start()
                worker.say(slot, "京 and after")
                await reader.until(lambda: reader.text.endswith("京 and after"))
            worker.end(slot)
            assert (await reader.end()).type == "finished"
            assert reader.text == "before, 東京 and after京 and after"
            assert not any(isinstance(update, Restarted) for update in reader.updates)


@pytest.mark.kill
async def test_jobs_that_a_killed_redis_has_forgotten_are_submitted_again() -> None:
    forgetful = ValkeyProcess(persist=False).start()  # loses for certain what another may lose
    try:
        with redis.Redis.from_url(forgetful.url) as connection:
            async with client_of(forgetful.url) as client:
                waiting = Reader(client, await submitted(client, chat_request("k1")))
                running = Reader(client, await submitted(client, chat_request("k2")))
                worker = Worker(connection)
                worker.say(worker.start(), "half an")
                await waiting.until(lambda: waiting.text == "half an")
                forgetful.kill9()
                forgetful.start()
                await waiting.until(lambda: worker.queue.count == 2)
                for _ in range(2):
                    slot = worker.start()
                    worker.say(slot, f"answer to {slot.job.id}")
                    worker.end(slot)
                for reader, key in ((waiting, "k1"), (running, "k2")):
                    assert (await reader.end()).type == "finished"
                    assert reader.text == f"answer to t1__{key}"
    finally:
        forgetful.remove()


@pytest.mark.kill
async def test_a_reader_gives_up_on_a_redis_that_stays_away(restartable_server: ValkeyProcess) -> None:
    async with client_of(restartable_server.url, outage_s=0.5) as client:
        job_id = await submitted(client)
        reader = Reader(client, job_id)
        await reader.until(lambda: bool(reader.updates))
        restartable_server.kill9()
        with pytest.raises(RedisUnavailableError, match="cannot be reached"):
            await reader.end()
        with pytest.raises(RedisUnavailableError):
            await client.submit(chat_request("k2"))
