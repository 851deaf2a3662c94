"""kill -9 in the middle of image jobs: the pictures arrive once, whole and right, whatever dies."""

import json
import os
import time

import pytest
import redis

from tests.image_jobs import assert_drawn, draw, image_config, image_queue, image_request
from tests.jobs import ends, types, wait_until
from tests.queue_ends import Reader, client_of
from tests.valkey import ValkeyProcess
from tests.worker_processes import alive, children, supervisor, worker
from workers import keys
from workers.client import ImageProgress
from workers.maintenance import Maintenance

pytestmark = pytest.mark.kill

STEPS = {"options": {"n": 2, "seed": 7, "num_inference_steps": 20}}


def ask(client: redis.Redis, count: int) -> list[str]:
    queue = image_queue(client)
    return [
        draw(queue, image_request(f"k{number}", f"t{number % 3}", f"fox {number}", body=STEPS))
        for number in range(count)
    ]


def drawing(client: redis.Redis) -> bool:
    """Some reader has seen a preview."""
    return any(client.hexists(key, "preview") for key in client.scan_iter(keys.image_progress("*")))


def test_engine_killed(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    ids = ask(redis_client, 6)
    with worker(image_config(server.url, step_s=0.02)) as process:
        wait_until(lambda: drawing(redis_client))
        os.kill(children(process.pid)[0], 9)
        wait_until(lambda: len(ends(redis_client)) == 6)
    assert_drawn(redis_client, ids)
    assert "retrying" in types(redis_client)


def test_worker_killed(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    ids = ask(redis_client, 6)
    janitor = Maintenance(image_queue(redis_client))
    with worker(image_config(server.url, "first", step_s=0.02)) as first:
        wait_until(lambda: drawing(redis_client))
        (engine,) = children(first.pid)
        first.kill9()
        wait_until(lambda: not alive(engine), what="for the engine to die with its worker")
    with worker(image_config(server.url, "second")):
        wait_until(lambda: janitor.tick() and len(ends(redis_client)) == 6)
    assert_drawn(redis_client, ids)


def test_a_worker_killed_with_its_pictures_stored_but_not_told(
    server: ValkeyProcess, redis_client: redis.Redis
) -> None:
    """Whatever the dead worker had stored, the end names pictures of the execution that lived."""
    queue = image_queue(redis_client)
    job_id = draw(queue, image_request(prompt=json.dumps({"px": 64}), body={"options": {"n": 8, "seed": 7}}))
    janitor = Maintenance(queue)
    with worker(image_config(server.url, "first", step_s=0.01)) as first:
        wait_until(lambda: next(redis_client.scan_iter(keys.artifact("*")), None))
        first.kill9()
    with worker(image_config(server.url, "second")):
        wait_until(lambda: janitor.tick() and ends(redis_client))
    event = ends(redis_client)[job_id]
    assert len(event.images) == 8
    assert {image.artifact_id.rpartition("-")[0] for image in event.images} == {event.execution_id}


def test_server_killed_and_restarted(restartable_server: ValkeyProcess) -> None:
    with redis.Redis.from_url(restartable_server.url) as client:
        ids = ask(client, 6)
        with supervisor(image_config(restartable_server.url, step_s=0.02)):
            wait_until(lambda: drawing(client))
            restartable_server.sync()
            restartable_server.kill9()
            time.sleep(1.0)  # pictures are finished meanwhile
            restartable_server.start()
            wait_until(lambda: len(ends(client)) == 6)
        assert_drawn(client, ids)
        assert [event.attempt for event in ends(client).values()] == [1] * 6, "the engine went on"


def test_server_that_lost_its_last_second(restartable_server: ValkeyProcess) -> None:
    """Pictures and ends that were confirmed are gone: they are written again."""
    with redis.Redis.from_url(restartable_server.url) as client:
        ids = ask(client, 2)
        (log,) = (restartable_server.directory / "appendonlydir").glob("*.incr.aof")
        with worker(image_config(restartable_server.url, step_s=0.02)):
            wait_until(lambda: types(client).count("started") == 2)
            client.waitaof(1, 0, 10_000)
            kept_bytes = log.stat().st_size
            wait_until(lambda: len(ends(client)) == 2)
            restartable_server.kill9()
            os.truncate(log, kept_bytes)
            assert b'"finished"' not in log.read_bytes()
            assert keys.artifact_index().encode() not in log.read_bytes()
            restartable_server.start()
            wait_until(lambda: len(ends(client)) == 2)
            assert_drawn(client, ids)


def test_a_request_that_kills_the_engine_is_quarantined(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    ids = ask(redis_client, 3)
    poison = draw(image_queue(redis_client), image_request("poison", "t9", json.dumps({"kill": 3})))
    with worker(image_config(server.url, step_s=0.01)):
        wait_until(lambda: len(ends(redis_client)) == 4)
    assert_drawn(redis_client, ids)
    failure = ends(redis_client)[poison].failure
    assert failure is not None
    assert failure.code == "quarantined"


async def test_a_reader_is_told_that_the_drawing_begins_again(server: ValkeyProcess) -> None:
    async with client_of(server.url) as client:
        request = image_request(body=STEPS)
        with worker(image_config(server.url, step_s=0.05)) as process:
            reader = Reader(client, (await client.submit(request)).job_id)
            await reader.until(lambda: any(isinstance(update, ImageProgress) for update in reader.updates))
            os.kill(children(process.pid)[0], 9)
            assert (await reader.end()).type == "finished"
        names = [type(update).__name__ for update in reader.updates]
        assert names.count("Restarted") == 1
        assert names[-1] == "Ended"
