"""Image jobs on a real worker process with a fast engine: progress, pictures, pictures to begin from, stops."""

import json

import pytest
import redis

from tests import image_engine
from tests.image_jobs import assert_drawn, draw, image_config, image_queue, image_request, pictures_of
from tests.jobs import ends, types, wait_until
from tests.queue_ends import Reader, client_of
from tests.valkey import ValkeyProcess
from tests.worker_processes import worker
from workers import keys
from workers.client import ImageProgress
from workers.errors import ArtifactError, ArtifactNotFoundError, NotAllowedError
from workers.progress import TTL_S

SLOW = json.dumps({"step_s": 0.02})


def test_pictures_are_stored_before_their_end_is_told(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = image_queue(redis_client)
    ids = [draw(queue, image_request(f"k{i}", f"t{i % 3}", f"fox {i}")) for i in range(40)]
    with worker(image_config(server.url)):
        wait_until(lambda: len(ends(redis_client)) == 40)
    assert_drawn(redis_client, ids)
    usage = ends(redis_client)[ids[0]].usage
    assert usage is not None
    assert (usage.image_steps, usage.gpu_s > 0) == (2 * image_engine.STEPS, True)
    assert redis_client.hgetall(keys.fair("image", "in_flight")) == {}
    unbounded = {key for key in redis_client.scan_iter(keys.PREFIX + "*") if redis_client.ttl(key) == -1}
    assert {key for key in unbounded if not key.startswith(keys.fair("image", "").encode())} <= {
        keys.workers().encode()
    }


async def test_a_reader_sees_steps_and_previews(server: ValkeyProcess) -> None:
    async with client_of(server.url) as client:
        request = image_request(prompt=SLOW, body={"options": {"n": 1, "num_inference_steps": 30, "seed": 3}})
        with worker(image_config(server.url)):
            reader = Reader(client, (await client.submit(request)).job_id)
            event = await reader.end()
        progress = [update for update in reader.updates if isinstance(update, ImageProgress)]
        assert len(progress) >= 3
        assert [update.step for update in progress] == sorted({update.step for update in progress})
        assert {update.total_steps for update in progress} == {30}
        previews = [update.preview for update in progress if update.preview]
        assert previews
        assert all(preview.startswith(b"\x89PNG") for preview in previews)
        assert len(set(previews)) == len(previews), "none is told twice"
        assert 0 < await client.connection.ttl(keys.image_progress(str(event.execution_id))) <= TTL_S
        assert await client.artifact(event.images[0].artifact_id) == image_engine.picture(SLOW, 3)


async def test_a_stop_takes_effect_at_the_next_step(server: ValkeyProcess) -> None:
    async with client_of(server.url) as client:
        request = image_request(prompt=SLOW, body={"options": {"num_inference_steps": 200}})
        with worker(image_config(server.url, capacity=1)):
            reader = Reader(client, (await client.submit(request)).job_id)
            await reader.until(lambda: any(isinstance(update, ImageProgress) for update in reader.updates))
            assert await client.cancel(request.job_id, "u1") == "stopping"
            event = await reader.end()
            assert event.type == "cancelled"
            assert event.images == ()
            following = Reader(client, (await client.submit(image_request("k2"))).job_id)
            assert (await following.end()).type == "finished", "its slot is free"
        last = [update.step for update in reader.updates if isinstance(update, ImageProgress)][-1]
        assert last < 200


async def test_a_picture_to_begin_from_reaches_the_engine(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    init = image_engine.png(b"\1\2\3", 16)
    async with client_of(server.url) as client:
        init_id = await client.put_artifact(init, "image/png", tenant="t1", user="u1")
        assert await client.put_artifact(init, tenant="t1", user="u1") == init_id
        assert await client.artifact(init_id) == init
        with worker(image_config(server.url)):
            request = image_request(body={"init_image": init_id, "options": {"seed": 5}})
            event = await Reader(client, (await client.submit(request)).job_id).end()
        assert pictures_of(redis_client, event) == [image_engine.picture("a red fox", 5, init)]


@pytest.mark.parametrize("kind", ["never", "deleted", "another tenant's"])
async def test_a_picture_that_cannot_be_had_refuses_the_job(server: ValkeyProcess, kind: str) -> None:
    async with client_of(server.url) as client:
        tenant = "t2" if kind == "another tenant's" else "t1"
        init_id = await client.put_artifact(image_engine.png(b"\1\2\3", 16), tenant=tenant, user="u1")
        if kind == "deleted":
            assert await client.delete_artifact(init_id, tenant="t1", user="u1")
        with worker(image_config(server.url)):
            request = image_request(body={"init_image": "in-0" if kind == "never" else init_id})
            event = await Reader(client, (await client.submit(request)).job_id).end()
        assert event.type == "refused"
        assert event.failure is not None
        assert event.failure.code == "picture_expired"
        assert "Send it again" in event.failure.message


async def test_only_its_owner_or_a_moderator_deletes_a_picture(server: ValkeyProcess) -> None:
    async with client_of(server.url) as client:
        with worker(image_config(server.url)):
            event = await Reader(client, (await client.submit(image_request())).job_id).end()
        first, second = (image.artifact_id for image in event.images)
        for tenant, user, moderator in (("t1", "u2", False), ("t2", "u1", False), ("t2", "u1", True)):
            with pytest.raises(NotAllowedError):
                await client.delete_artifact(first, tenant=tenant, user=user, moderator=moderator)
        assert await client.delete_artifact(first, tenant="t1", user="u1")
        assert not await client.delete_artifact(first, tenant="t1", user="u1"), "it is gone"
        assert await client.delete_artifact(second, tenant="t1", user="u9", moderator=True)
        with pytest.raises(ArtifactNotFoundError):
            await client.artifact(first)


async def test_what_is_no_picture_is_not_taken(server: ValkeyProcess) -> None:
    async with client_of(server.url) as client:
        for data, media_type in ((b"MZ\x90", None), (b"", None), (image_engine.png(b"\1\2\3", 4), "image/jpeg")):
            with pytest.raises(ArtifactError):
                await client.put_artifact(data, media_type, tenant="t1", user="u1")
        assert await client.connection.dbsize() == 0


def test_chat_and_image_jobs_do_not_mix(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    """A job whose function names another kind than its body is refused, and never reaches an engine."""
    queue = image_queue(redis_client)
    request = image_request()
    queue.enqueue_call("palaver.chat", kwargs={"request": request.model_dump(mode="json")}, job_id=request.job_id)
    with worker(image_config(server.url)):
        wait_until(lambda: ends(redis_client))
    (event,) = ends(redis_client).values()
    assert event.failure is not None
    assert event.failure.code == "bad_contract"


def test_failures_end_as_their_kind_demands(server: ValkeyProcess, redis_client: redis.Redis) -> None:
    queue = image_queue(redis_client)
    refused = draw(queue, image_request("k1", prompt=json.dumps({"refuse": "refused"})))
    invalid = draw(queue, image_request("k2", prompt=json.dumps({"refuse": "invalid_request"})))
    fine = draw(queue, image_request("k3"))
    with worker(image_config(server.url)):
        wait_until(lambda: len(ends(redis_client)) == 3)
    assert [ends(redis_client)[job_id].type for job_id in (refused, invalid)] == ["refused", "failed"]
    assert_drawn(redis_client, [fine])
    assert types(redis_client, fine) == ["started", "finished"]
