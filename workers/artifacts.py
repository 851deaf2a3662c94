"""Pictures on their way between front-ends and workers: bytes by id, for a time, each with an owner.

Who owns a picture is always known to Redis; its bytes lie there as well, or wherever the settings say. A finished
picture's id follows from its execution, so that storing it again after a lost reply changes nothing.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import redis

from workers import keys, scripts
from workers.blob_stores import BlobStore, open_blobs
from workers.errors import ArtifactError, ArtifactNotFoundError, NotAllowedError
from workers.settings import ArtifactSettings

_EXPIRED = "The picture has expired or was deleted. Send it, or ask for it, again."


@dataclass(frozen=True, slots=True)
class Artifact:
    """One stored picture.

    Args:
        data: Encoded: PNG, JPEG or WebP.
        media_type: ``image/png``, ``image/jpeg`` or ``image/webp``.
        tenant: Whose; nobody else's jobs may use it.
        user: Who may delete it.
    """

    data: bytes
    media_type: str
    tenant: str
    user: str


def result_id(execution_id: str, index: int) -> str:
    """Id of a finished picture: always the same for the same execution and place."""
    return f"{execution_id}-{index}"


def upload_id(data: bytes, tenant: str, user: str) -> str:
    """Id of a picture that somebody sends: the same for the same picture of the same person, and not to be guessed."""
    digest = hashlib.sha256()
    for part in (tenant.encode(), user.encode(), data):
        digest.update(len(part).to_bytes(8, "big") + part)
    return f"in-{digest.hexdigest()[:40]}"


def media_type_of(data: bytes) -> str:
    """What a picture's first bytes say it is.

    Raises:
        ArtifactError: None of the formats that are taken.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp"
    raise ArtifactError("This is no picture that can be used; send a PNG, JPEG or WebP.")


def checked_media_type(data: bytes, said: str | None) -> str:
    """What a picture is, by its bytes; ``said`` is what its sender calls it, None for nothing.

    Raises:
        ArtifactError: None of the formats that are taken, or not what it is said to be.
    """
    found = media_type_of(data)
    if said is not None and found != said.partition(";")[0].strip().lower().replace("jpg", "jpeg"):
        raise ArtifactError(f"The picture is said to be {said[:40]}, but its bytes are {found}.")
    return found


class ArtifactStore:
    """All pictures of one queue's server; its methods may be called from any thread.

    Args:
        connection: Client that returns bytes.
        settings: Where bytes lie, and for how long.
        data_dir: The product's data directory.

    Raises:
        SettingsError: The configured store cannot be used.
    """

    def __init__(self, connection: redis.Redis, settings: ArtifactSettings, data_dir: Path) -> None:
        self._redis = connection
        self._settings = settings
        self._blobs: BlobStore | None = open_blobs(settings, data_dir)

    def put(self, artifact_id: str, artifact: Artifact) -> None:
        """Store a picture; the same id again only keeps it for longer.

        Raises:
            ArtifactError: It is too large.
            ArtifactStoreError: The store failed.
            redis.RedisError: Redis is away.
        """
        size_bytes = len(artifact.data)
        limit_bytes = self._settings.max_bytes
        if self._blobs is None:
            limit_bytes = min(limit_bytes, self._settings.redis_total_bytes)
        if size_bytes > limit_bytes:
            raise ArtifactError(
                f"The picture has {size_bytes / 2**20:.1f} MiB; at most {limit_bytes / 2**20:.1f} MiB can be kept. "
                "Make it smaller, or have artifacts.max_bytes raised."
            )
        if self._blobs is not None:
            self._blobs.put(artifact_id, artifact.data, artifact.media_type)
        self.record(artifact_id, artifact)

    def record(self, artifact_id: str, artifact: Artifact) -> None:
        """Have Redis know a picture, whose bytes are in the store already unless Redis is the store.

        Raises:
            redis.RedisError: Redis is away.
        """
        size_bytes = len(artifact.data)
        arguments: list[scripts.Argument] = [artifact_id, artifact.tenant, artifact.user, artifact.media_type]
        arguments += [size_bytes, b"" if self._blobs else artifact.data, int(self._blobs is None)]
        arguments += [int(time.time()), self._settings.ttl_s, self._settings.redis_total_bytes, keys.artifact("")]
        names = [keys.artifact(artifact_id), keys.artifact_index(), keys.artifact_bytes()]
        scripts.load("put_artifact").run(self._redis, names, arguments)

    def get(self, artifact_id: str) -> Artifact:
        """Read a picture.

        Raises:
            ArtifactNotFoundError: There is none, or it has expired.
            ArtifactStoreError: The store failed.
            redis.RedisError: Redis is away.
        """
        fields = cast("list[bytes | None]", self._redis.hmget(keys.artifact(artifact_id), (*_OWNERS, "data")))
        tenant, user, media_type, data = fields
        if tenant is None or user is None or media_type is None:
            raise ArtifactNotFoundError(_EXPIRED)
        if self._blobs is not None:
            data = self._blobs.get(artifact_id)
        if not data:
            raise ArtifactNotFoundError(_EXPIRED)
        return Artifact(data, media_type.decode(), tenant.decode(), user.decode())

    def owner(self, artifact_id: str) -> tuple[str, str]:
        """Tenant and user of a picture.

        Raises:
            ArtifactNotFoundError: There is none, or it has expired.
            redis.RedisError: Redis is away.
        """
        tenant, user, _ = cast("list[bytes | None]", self._redis.hmget(keys.artifact(artifact_id), _OWNERS))
        if tenant is None or user is None:
            raise ArtifactNotFoundError(_EXPIRED)
        return tenant.decode(), user.decode()

    def missing(self, artifact_ids: Iterable[str]) -> list[str]:
        """Those that Redis does not know, or no longer.

        Raises:
            redis.RedisError: Redis is away.
        """
        wanted = list(artifact_ids)
        with self._redis.pipeline(transaction=False) as pipeline:
            for artifact_id in wanted:
                pipeline.exists(keys.artifact(artifact_id))
            found = pipeline.execute()
        return [artifact_id for artifact_id, there in zip(wanted, found, strict=True) if not there]

    def delete(self, artifact_id: str) -> bool:
        """Delete a picture; returns whether there was one.

        Raises:
            ArtifactStoreError: The store failed.
            redis.RedisError: Redis is away.
        """
        if self._blobs is not None:
            self._blobs.delete(artifact_id)
        names = [keys.artifact(artifact_id), keys.artifact_index(), keys.artifact_bytes()]
        return bool(scripts.load("delete_artifact").run(self._redis, names, [artifact_id]))

    def delete_owned(self, artifact_id: str, tenant: str, user: str, moderator: bool) -> bool:
        """Delete a picture on somebody's behalf; returns whether there was one.

        Raises:
            NotAllowedError: It is somebody else's.
            ArtifactStoreError: The store of pictures failed.
        """
        try:
            owner = self.owner(artifact_id)
        except ArtifactNotFoundError:
            return False
        if owner[0] != tenant or (owner[1] != user and not moderator):
            raise NotAllowedError("Only the person who asked for this picture, or a moderator, can delete it.")
        return self.delete(artifact_id)

    def sweep(self) -> int:
        """Delete bytes outside Redis whose time is over; returns how many pictures that were.

        Raises:
            ArtifactStoreError: The store failed.
        """
        return self._blobs.sweep(self._settings.ttl_s) if self._blobs is not None else 0


_OWNERS = ("tenant", "user", "media_type")
