"""Pictures by id: in Redis, on disk and in a bucket; each expires, is bounded, and belongs to somebody."""

import os
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import redis
from pydantic import ValidationError

from tests import image_engine
from tests.image_jobs import draw, image_config, image_queue, image_request
from tests.jobs import ends, wait_until
from tests.s3_server import BUCKET, KEY_ID, REGION, SECRET, Objects, s3_server
from tests.valkey import ValkeyProcess
from tests.worker_processes import worker
from workers import blob_stores, keys
from workers.artifacts import Artifact, ArtifactStore, upload_id
from workers.errors import ArtifactError, ArtifactNotFoundError, ArtifactStoreError, SettingsError
from workers.maintenance import Maintenance
from workers.settings import ArtifactSettings

PICTURE = Artifact(image_engine.png(b"\1\2\3", 16), "image/png", "t1", "u1")


@pytest.fixture
def bucket() -> Iterator[Objects]:
    with s3_server() as objects:
        yield objects


def s3_settings(bucket: Objects, **changes: Any) -> ArtifactSettings:
    fields = {"store": "s3", "s3_bucket": BUCKET, "s3_endpoint": bucket.url, "s3_region": REGION}
    fields |= {"s3_access_key_id": KEY_ID, "s3_secret_access_key": SECRET}
    return ArtifactSettings.model_validate(fields | changes)


def settings_of(kind: str, bucket: Objects) -> ArtifactSettings:
    return s3_settings(bucket) if kind == "s3" else ArtifactSettings.model_validate({"store": kind})


def sized(size_bytes: int) -> Artifact:
    return Artifact(b"\x89PNG\r\n\x1a\n" + bytes(size_bytes - 8), "image/png", "t1", "u1")


@pytest.mark.parametrize("kind", ["redis", "disk", "s3"])
def test_what_is_put_is_got_until_it_is_deleted(
    redis_client: redis.Redis, bucket: Objects, tmp_path: Path, kind: str
) -> None:
    store = ArtifactStore(redis_client, settings_of(kind, bucket), tmp_path)
    for _ in range(2):  # again changes nothing
        store.put("e1-0", PICTURE)
        assert store.get("e1-0") == PICTURE
    assert store.owner("e1-0") == ("t1", "u1")
    assert store.missing(["e1-0", "e1-1"]) == ["e1-1"]
    assert 0 < redis_client.ttl(keys.artifact("e1-0")) <= ArtifactSettings().ttl_s
    assert store.delete("e1-0")
    assert not store.delete("e1-0")
    with pytest.raises(ArtifactNotFoundError):
        store.get("e1-0")
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]
    assert bucket.data == {}


def test_redis_keeps_the_newest_within_its_bound(redis_client: redis.Redis, tmp_path: Path) -> None:
    store = ArtifactStore(redis_client, ArtifactSettings(redis_total_bytes=10_000), tmp_path)
    for number in range(5):
        store.put(f"e{number}-0", sized(3_000))
        time.sleep(1.01 if number == 1 else 0)  # the order is that of seconds
    assert len(store.missing(f"e{number}-0" for number in range(5))) == 2
    assert set(store.missing(["e0-0", "e1-0"])) == {"e0-0", "e1-0"}, "the oldest go"
    assert int(redis_client.get(keys.artifact_bytes()) or 0) == 9_000
    with pytest.raises(ArtifactError, match=r"artifacts\.max_bytes"):
        store.put("e9-0", sized(10_001))
    store.delete("e4-0")
    assert int(redis_client.get(keys.artifact_bytes()) or 0) == 6_000


def test_what_has_expired_makes_room(redis_client: redis.Redis, tmp_path: Path) -> None:
    store = ArtifactStore(redis_client, ArtifactSettings(redis_total_bytes=10_000), tmp_path)
    store.put("old-0", sized(9_000))
    redis_client.delete(keys.artifact("old-0"))  # as if its time were over
    redis_client.zadd(keys.artifact_index(), {"old-0:9000": time.time() - 1})
    store.put("new-0", sized(5_000))
    assert int(redis_client.get(keys.artifact_bytes()) or 0) == 5_000
    assert redis_client.zrange(keys.artifact_index(), 0, -1) == [b"new-0:5000"]


def test_files_are_private_and_swept_when_their_time_is_over(redis_client: redis.Redis, tmp_path: Path) -> None:
    store = ArtifactStore(redis_client, ArtifactSettings(store="disk", ttl_s=60), tmp_path)
    store.put("old-0", PICTURE)
    store.put("new-0", PICTURE)
    old, new = sorted((file for file in tmp_path.rglob("*-0")), key=lambda file: file.name, reverse=True)
    assert old.name == "old-0"
    assert old.stat().st_mode & 0o077 == old.parent.stat().st_mode & 0o077 == 0
    unfinished = old.with_name(".half")
    unfinished.write_bytes(b"")
    for file in (old, unfinished):
        os.utime(file, (0, time.time() - 61))
    assert store.sweep() == 2
    assert [file for file in tmp_path.rglob("*") if file.is_file()] == [new]


def test_maintenance_sweeps(redis_client: redis.Redis, tmp_path: Path) -> None:
    store = ArtifactStore(redis_client, ArtifactSettings(store="disk", ttl_s=60), tmp_path)
    store.put("old-0", PICTURE)
    (file,) = tmp_path.rglob("*-0")
    os.utime(file, (0, time.time() - 61))
    assert Maintenance(image_queue(redis_client), store).tick()
    assert not file.exists()


def test_objects_are_swept_when_their_time_is_over(redis_client: redis.Redis, tmp_path: Path, bucket: Objects) -> None:
    store = ArtifactStore(redis_client, s3_settings(bucket, ttl_s=60), tmp_path)
    store.put("old-0", PICTURE)
    store.put("new-0", PICTURE)
    assert bucket.data["palaver/old-0"] == (PICTURE.data, "image/png")
    bucket.written["palaver/old-0"] -= timedelta(seconds=61)
    bucket.data["others"] = (b"", "")
    bucket.written["others"] = bucket.written["palaver/old-0"]
    assert store.sweep() == 1
    assert set(bucket.data) == {"palaver/new-0", "others"}, "what is not ours stays"


def test_a_bucket_that_fails_says_so(redis_client: redis.Redis, tmp_path: Path, bucket: Objects) -> None:
    wrong = ArtifactStore(redis_client, s3_settings(bucket, s3_secret_access_key="wrong"), tmp_path)
    with pytest.raises(ArtifactStoreError) as caught:
        wrong.put("e1-0", PICTURE)
    assert "wrong" not in str(caught.value)
    assert redis_client.dbsize() == 0


def test_a_disk_that_is_no_directory_says_so(redis_client: redis.Redis, tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("")
    store = ArtifactStore(redis_client, ArtifactSettings(store="disk"), tmp_path)
    with pytest.raises(ArtifactStoreError, match="data directory"):
        store.put("e1-0", PICTURE)


def test_settings_that_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, redis_client: redis.Redis) -> None:
    with pytest.raises(ValidationError, match="s3_bucket"):
        ArtifactSettings(store="s3")
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    with pytest.raises(SettingsError, match=r"palaver\[s3\]"):
        ArtifactStore(redis_client, ArtifactSettings(store="s3", s3_bucket="b"), tmp_path)


def test_an_upload_is_known_by_its_owner_and_bytes() -> None:
    known = upload_id(b"data", "t1", "u1")
    assert known == upload_id(b"data", "t1", "u1")
    assert (
        len({known, upload_id(b"date", "t1", "u1"), upload_id(b"data", "t2", "u1"), upload_id(b"data", "t1u", "1")})
        == 4
    )


@pytest.mark.parametrize("kind", ["disk", "s3"])
def test_a_worker_uses_the_configured_store(
    server: ValkeyProcess, redis_client: redis.Redis, tmp_path: Path, bucket: Objects, kind: str
) -> None:
    settings = settings_of(kind, bucket)
    bucket.failing = True
    job_id = draw(image_queue(redis_client), image_request())
    configured = image_config(server.url).model_copy(update={"artifacts": settings, "data_dir": tmp_path})
    with worker(configured):
        if kind == "s3":
            wait_until(lambda: redis_client.hget(f"rq:job:{job_id}", "status") == b"started")
            time.sleep(0.5)
            assert ends(redis_client) == {}, "no end before the pictures are stored"
            bucket.failing = False
        wait_until(lambda: job_id in ends(redis_client))
    event = ends(redis_client)[job_id]
    assert event.type == "finished"
    store = ArtifactStore(redis_client, settings, tmp_path)
    found = [store.get(image.artifact_id).data for image in event.images]
    assert found == [image_engine.picture("a red fox", seed) for seed in (7, 8)]
    assert redis_client.hget(keys.artifact(event.images[0].artifact_id), "data") is None
    assert blob_stores.open_blobs(settings, tmp_path) is not None
