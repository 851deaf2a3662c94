"""What is backed up comes back, on another server and in another data directory."""

from __future__ import annotations

import contextlib
import sqlite3
import tarfile
from pathlib import Path

import redis

from tests.integration.test_operator_commands import Operator
from tests.valkey import ValkeyProcess


def test_a_backup_is_restored_elsewhere(
    server: ValkeyProcess, redis_client: redis.Redis, restartable_server: ValkeyProcess, tmp_path: Path
) -> None:
    old, new, file = tmp_path / "old", tmp_path / "new", tmp_path / "kept.tar.gz"
    old.mkdir()
    new.mkdir()
    redis_client.hset("palaver:conversation:t1:c1", mapping={b"turn": b"caf\xc3\xa9 \xff", "n": "1"})
    redis_client.expire("palaver:conversation:t1:c1", 500)
    redis_client.zadd("palaver:recent:discord:u", {"a": 1.5})
    redis_client.sadd("palaver:conversations_of:discord:u", "c1")
    redis_client.set("palaver:config:t1", "{}")
    redis_client.set("palaver:live:t1__k1", "in flight")
    (old / "moderation.key").write_bytes(b"key")
    with contextlib.closing(sqlite3.connect(old / "moderation.sqlite3")) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE decisions (id)")
        database.execute("INSERT INTO decisions VALUES (7)")
        database.commit()
        assert "4 keys" in Operator(server.url, old)("backup", str(file))  # while it is in use
    assert file.stat().st_mode & 0o077 == 0
    operator = Operator(restartable_server.url, new)
    said = operator("restore", str(file))
    assert "4 keys" in said
    assert "moderation.sqlite3" in said
    with redis.Redis.from_url(restartable_server.url) as restored:
        assert restored.hgetall("palaver:conversation:t1:c1") == {b"turn": b"caf\xc3\xa9 \xff", b"n": b"1"}
        assert 0 < restored.ttl("palaver:conversation:t1:c1") <= 500
        assert restored.zrange("palaver:recent:discord:u", 0, -1, withscores=True) == [(b"a", 1.5)]
        assert restored.smembers("palaver:conversations_of:discord:u") == {b"c1"}
        assert restored.ttl("palaver:config:t1") == -1
        assert not restored.exists("palaver:live:t1__k1")
        restored.set("palaver:config:t1", "newer")
        assert "0 keys" in operator("restore", str(file))
        assert restored.get("palaver:config:t1") == b"newer"
        operator("restore", "--replace", str(file))
        assert restored.get("palaver:config:t1") == b"{}"
    with contextlib.closing(sqlite3.connect(new / "moderation.sqlite3")) as database:
        assert database.execute("SELECT id FROM decisions").fetchall() == [(7,)]
    assert (new / "moderation.key").read_bytes() == b"key"


def test_what_is_no_backup_is_refused(server: ValkeyProcess, redis_client: redis.Redis, tmp_path: Path) -> None:
    operator, file = Operator(server.url, tmp_path), tmp_path / "f"
    file.write_bytes(b"no archive")
    assert "no back-up of Palaver" in operator("restore", str(file), code=65)
    (tmp_path / "redis.jsonl").write_text(
        '{"v": 1}\n{"key": "rq:job:x", "type": "string", "expires_s": null, "value": ""}\n'
    )
    with tarfile.open(file, "w:gz") as tar:
        tar.add(tmp_path / "redis.jsonl", "redis.jsonl")
    assert "no back-up of Palaver" in operator("restore", str(file), code=65)
    assert redis_client.dbsize() == 0
