"""A real worker, and everything that reads Redis, among entries that nobody of ours has written."""

from __future__ import annotations

import asyncio
import json
import zlib

import pytest
import redis
import redis.asyncio
from hypothesis import given
from hypothesis import strategies as st
from rq.serializers import JSONSerializer

from bots.overview import workers_of
from tests.fuzz.inputs import encoded, examples, garbage, json_values, mutated, texts
from tests.jobs import ask, assert_answered, chat_request, ends, fair_queue, payload, wait_until
from tests.valkey import ValkeyProcess
from tests.worker_processes import alive, config, wait_ready, worker
from workers import keys
from workers.fair_queue import FairQueue
from workers.maintenance import Maintenance
from workers.results import EventStream

REQUEST = payload(chat_request(key="z", prompt='{"tokens": 2}'))
#: What another program may have put where a job's arguments are.
arguments = (
    mutated(REQUEST).map(lambda request: {"request": request})
    | json_values.map(lambda value: {"request": value})
    | st.dictionaries(texts.filter(str.isidentifier), json_values, max_size=3)
)
_numbers = iter(range(10**9))


@pytest.fixture(scope="module")
def served():
    server = ValkeyProcess(persist=False).start()
    with redis.Redis.from_url(server.url) as client, worker(config(server.url)) as process:
        wait_ready(client)
        yield client, process
    server.remove()


def still_answers(client: redis.Redis, process: object) -> None:
    job_id = ask(fair_queue(client), f"good{next(_numbers)}", tokens=3)
    wait_until(lambda: job_id in ends(client), what="for a good job among bad ones")
    assert alive(process.pid)  # type: ignore[attr-defined]
    assert_answered(client, [job_id])
    client.xtrim(keys.events("term"), maxlen=0)


def put(queue: FairQueue, kwargs: object, raw: bytes | None = None) -> str:
    """A job as any program may enqueue one, with these arguments, or with these bytes in their place."""
    job = queue.enqueue_call("palaver.chat", kwargs={}, job_id=f"t{next(_numbers)}__bad", result_ttl=60, failure_ttl=60)
    data = zlib.compress(json.dumps(["palaver.chat", None, [], kwargs]).encode()) if raw is None else raw
    queue.connection.hset(f"rq:job:{job.id}", "data", data)
    return str(job.id)


@examples(6)
@given(st.lists(arguments, min_size=5, max_size=25), st.lists(garbage, max_size=10))
def test_a_worker_ends_jobs_with_any_payload_and_goes_on(served, payloads, raws):
    client, process = served
    queue = fair_queue(client)
    bad = [put(queue, each) for each in payloads] + [put(queue, None, raw) for raw in raws]
    still_answers(client, process)

    def ended() -> bool:
        states = [client.hget(f"rq:job:{job_id}", "status") for job_id in bad]
        return all(state in (b"failed", b"finished", None) for state in states)

    wait_until(ended, what="for the bad jobs to end")
    Maintenance(FairQueue("chat", connection=client, serializer=JSONSerializer)).tick()


@examples(8)
@given(st.lists(json_values.map(encoded) | garbage, min_size=1, max_size=20))
def test_a_worker_hears_any_order_and_goes_on(served, messages):
    client, process = served
    (name,) = [raw.decode() for raw in client.hkeys(keys.workers())][:1]
    for message in messages:
        client.publish(f"rq:pubsub:{name}", message)
        if isinstance(message, bytes) and message[:1] == b"{":
            client.publish(f"rq:pubsub:{name}", b'{"command": "stop-job", "job_id": ' + message + b"}")
    client.publish(f"rq:pubsub:{name}", b'{"command": "stop-job"}')
    still_answers(client, process)


@examples(8)
@given(st.lists(garbage, min_size=1, max_size=20))
def test_a_front_end_puts_aside_what_it_cannot_read(redis_client, raws):
    async def read() -> int:
        async with redis.asyncio.Redis.from_url(url) as client:
            stream, seen = EventStream(client, "f", "c"), 0
            for _ in range(3):
                seen += len(await stream.read(block_s=0.01))
        return seen

    path = redis_client.connection_pool.connection_kwargs["path"]
    url = f"unix://{path}"
    redis_client.delete(keys.events("f"), keys.rejected())
    for raw in raws:
        redis_client.xadd(keys.events("f"), {"event": raw, "other": b"x"})
    redis_client.xadd(keys.events("f"), {"nothing": b"x"})
    seen = asyncio.run(read())
    assert seen + redis_client.llen(keys.rejected()) == len(raws) + 1


@examples(40)
@given(garbage)
def test_entries_of_workers_that_cannot_be_read_are_passed_over(redis_client, raw):
    redis_client.hset(keys.workers(), "w", raw)
    assert isinstance(workers_of(redis_client), list)
    Maintenance(fair_queue(redis_client))._forget_workers()
