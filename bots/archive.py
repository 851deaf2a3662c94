"""Back-up of what is kept: conversations, settings of tenants, accounts, records; not jobs, which are in flight.

An archive is a ``tar.gz`` with ``redis.jsonl`` (one key a line, by type, so that any Redis or Valkey takes it)
and ``files/`` (databases and keys of the data directory). It holds what people wrote: it is written for its owner only.
"""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import sqlite3
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, cast

import redis
from rq.utils import as_text

from workers import keys
from workers.errors import ContractError

VERSION = 1
#: What follows ``palaver:`` in the keys that are kept; all else belongs to jobs and expires within days.
KEPT = (
    "config",
    "conversation",
    "conversations_of",
    "message_job",
    "personal_usage",
    "recent",
    "request",
    "usage",
)
_DATABASES = ("*.sqlite", "*.sqlite3")
_FILES = ("*.key", "palaver.toml")
_SCAN_COUNT = 500


@dataclass(frozen=True, slots=True)
class Contents:
    """What an archive holds, or what of it was restored."""

    keys: int
    files: list[str]


def write(client: redis.Redis, data_dir: Path, archive: Path) -> Contents:
    """Write an archive, whole or not at all; everything may go on running meanwhile.

    Args:
        client: Connected to the queue's server.
        data_dir: Whose databases and keys are taken.
        archive: Where to.

    Raises:
        redis.RedisError: Redis is away.
        OSError: The file cannot be written.
    """
    draft = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with _private(draft) as raw:
            with tarfile.open(fileobj=raw, mode="w:gz") as tar:
                count = _add_keys(client, tar)
                files = _add_files(data_dir, tar)
            raw.flush()
            os.fsync(raw.fileno())
        draft.replace(archive)
    finally:
        draft.unlink(missing_ok=True)
    return Contents(count, files)


def read(client: redis.Redis, data_dir: Path, archive: Path, *, replace: bool = False) -> Contents:
    """Restore an archive. What has expired since is left out; what exists stays, unless it is to be replaced.

    Args:
        client: Connected to the server to restore into.
        data_dir: Where databases and keys go; nothing may be using them.
        archive: Which one.
        replace: Whether keys and files that exist are replaced.

    Raises:
        ContractError: It is no archive of ours, or of a newer release.
        redis.RedisError: Redis is away; restoring again goes on where this stopped.
    """
    count = 0
    files: list[str] = []
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                content = tar.extractfile(member)
                if content is None:
                    continue
                path = PurePosixPath(member.name)
                if member.name == "redis.jsonl":
                    count = _restore_keys(client, content, replace=replace)
                elif path.parent == PurePosixPath("files") and _is_ours(path.name):
                    files += _restore_file(data_dir / path.name, content.read(), replace=replace)
    except (tarfile.TarError, EOFError, ValueError, KeyError, TypeError):
        raise ContractError(f"{archive} is no back-up of Palaver, or is damaged.") from None
    return Contents(count, files)


def _private(place: Path) -> BinaryIO:
    return os.fdopen(os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _add_keys(client: redis.Redis, tar: tarfile.TarFile) -> int:
    count = 0
    with tempfile.TemporaryFile() as lines:
        lines.write(json.dumps({"v": VERSION, "at_s": time.time()}).encode() + b"\n")
        for part in KEPT:
            for name in client.scan_iter(f"{keys.PREFIX}{part}:*", count=_SCAN_COUNT):
                entry = _entry(client, cast("bytes", name))
                if entry is not None:
                    lines.write(json.dumps(entry).encode() + b"\n")
                    count += 1
        header = tarfile.TarInfo("redis.jsonl")
        header.size, header.mtime, header.mode = lines.tell(), int(time.time()), 0o600
        lines.seek(0)
        tar.addfile(header, lines)
    return count


def _entry(client: redis.Redis, name: bytes) -> dict[str, Any] | None:
    """One key, in types of JSON; None if it has just expired."""
    kind = as_text(cast("bytes", client.type(name)))
    with client.pipeline() as pipeline:
        pipeline.pttl(name)
        match kind:
            case "string":
                pipeline.get(name)
            case "hash":
                pipeline.hgetall(name)
            case "zset":
                pipeline.zrange(name, 0, -1, withscores=True)
            case "set":
                pipeline.smembers(name)
            case "list":
                pipeline.lrange(name, 0, -1)
            case _:
                return None
        ttl_ms, value = pipeline.execute()
    if not value:
        return None
    expires_s = time.time() + ttl_ms / 1000 if ttl_ms >= 0 else None
    return {"key": as_text(name), "type": kind, "expires_s": expires_s, "value": _plain(value)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return [[_plain(name), _plain(item)] for name, item in value.items()]
    return [_plain(each) for each in value] if isinstance(value, list | tuple | set) else value


def _restore_keys(client: redis.Redis, lines: Any, *, replace: bool) -> int:
    first = json.loads(lines.readline())
    if first["v"] != VERSION:
        raise ContractError(f"The back-up has version {str(first['v'])[:20]}; this release reads {VERSION}.")
    count = 0
    for line in lines:
        entry = json.loads(line)
        if not entry["key"].startswith(tuple(f"{keys.PREFIX}{part}:" for part in KEPT)):
            raise ValueError("a key that is none of ours")
        if entry["expires_s"] is not None and entry["expires_s"] <= time.time():
            continue
        if replace or not client.exists(entry["key"]):
            _put(client, entry)
            count += 1
    return count


def _put(client: redis.Redis, entry: dict[str, Any]) -> None:
    name, value = entry["key"], entry["value"]
    with client.pipeline() as pipeline:
        pipeline.delete(name)
        match entry["type"]:
            case "string":
                pipeline.set(name, base64.b64decode(value))
            case "hash":
                pipeline.hset(name, mapping={base64.b64decode(field): base64.b64decode(item) for field, item in value})
            case "zset":
                pipeline.zadd(name, {base64.b64decode(member): score for member, score in value})
            case "set":
                pipeline.sadd(name, *map(base64.b64decode, value))
            case "list":
                pipeline.rpush(name, *map(base64.b64decode, value))
            case other:
                raise ValueError(other)
        if entry["expires_s"] is not None:
            pipeline.pexpireat(name, int(entry["expires_s"] * 1000))
        pipeline.execute()


def _is_ours(name: str) -> bool:
    return any(PurePosixPath(name).match(pattern) for pattern in (*_DATABASES, *_FILES))


def _add_files(data_dir: Path, tar: tarfile.TarFile) -> list[str]:
    found = []
    for pattern in (*_DATABASES, *_FILES):
        for file in sorted(data_dir.glob(pattern)):
            content = _snapshot(file) if pattern in _DATABASES else file.read_bytes()
            header = tarfile.TarInfo(f"files/{file.name}")
            header.size, header.mtime, header.mode = len(content), int(file.stat().st_mtime), 0o600
            tar.addfile(header, io.BytesIO(content))
            found.append(file.name)
    return found


def _snapshot(database: Path) -> bytes:
    """A database as it is at one moment, although others write to it."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        with (
            contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as source,
            contextlib.closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        return copy.read_bytes()


def _restore_file(place: Path, content: bytes, *, replace: bool) -> Iterator[str]:
    if place.exists() and not replace:
        return
    place.parent.mkdir(parents=True, exist_ok=True)
    draft = place.with_name(f".{place.name}.{os.getpid()}")
    with _private(draft) as file:
        file.write(content)
    for companion in ("-wal", "-shm"):  # those of the database that is replaced would be read into this one
        place.with_name(place.name + companion).unlink(missing_ok=True)
    draft.replace(place)
    yield place.name
