"""Finished pictures: stored by threads as the engine tells them, all of them before the end of their execution is told.

They stay in memory until that end is certainly on the server's disk, so that a server that lost its last seconds is
given them again.
"""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import redis

from workers.artifacts import Artifact, ArtifactStore, result_id
from workers.attachments import ATTEMPTS, RETRY_S
from workers.contract import ArtifactRef
from workers.errors import ArtifactStoreError, WorkersError
from workers.execution_slots import Slot
from workers.redis_connection import will_pass

log = logging.getLogger("palaver.worker")


@dataclass(slots=True)
class _Picture:
    """One picture on its way into the store."""

    index: int
    ref: ArtifactRef
    artifact: Artifact
    future: Future[None]
    attempts: int = 1


class Pictures:
    """The finished pictures of one worker's executions.

    Args:
        store: Where they go.
        threads: Who takes them there.
        ring: Wakes the worker's loop; called from threads.
    """

    def __init__(self, store: ArtifactStore, threads: Executor, ring: Callable[[], None]) -> None:
        self._store = store
        self._threads = threads
        self._ring = ring
        self._pictures: dict[str, list[_Picture]] = {}

    def take(
        self,
        slot: Slot,
        index: int,
        data: str,
        media_type: str,
        size_px: tuple[int, int],
        seed: int,
        *,
        covered: bool = False,
    ) -> None:
        """Begin to store what the engine has finished.

        Args:
            slot: Whose.
            index: Which of its pictures, from 0.
            data: In base64.
            media_type: As in ``ArtifactRef``.
            size_px: Width and height.
            seed: As in ``ArtifactRef``.
            covered: As in ``ArtifactRef``.
        """
        request = slot.job.request
        artifact = Artifact(base64.b64decode(data), media_type, request.tenant, request.user)
        ref = ArtifactRef.model_validate(
            {
                "artifact_id": result_id(slot.id, index),
                "media_type": media_type,
                "width_px": size_px[0],
                "height_px": size_px[1],
                "size_bytes": len(artifact.data),
                "seed": seed,
                "covered": covered,
            }
        )
        future = self._submit(self._put, ref.artifact_id, artifact, 0.0)
        self._pictures.setdefault(slot.id, []).append(_Picture(index, ref, artifact, future))

    def refs(self, execution_id: str) -> tuple[ArtifactRef, ...]:
        """What the end of an execution tells of its pictures, in the order of their seeds, not of their completion."""
        pictures = sorted(self._pictures.get(execution_id, ()), key=lambda picture: picture.index)
        return tuple(picture.ref for picture in pictures)

    def busy(self, execution_id: str) -> bool:
        """Whether threads are at work for an execution; the bell rings when they have done something."""
        return any(not picture.future.done() for picture in self._pictures.get(execution_id, ()))

    def stored(self, execution_id: str) -> bool:
        """Whether all pictures of an execution are in the store; what failed is begun again.

        Raises:
            WorkersError: One cannot be stored.
        """
        return all(self._is_stored(picture) for picture in self._pictures.get(execution_id, ()))

    def restore(self, execution_id: str) -> None:
        """Give the server again what it has lost since a picture was stored, before an end tells of it.

        Raises:
            redis.RedisError: Redis is away.
        """
        artifacts = {picture.ref.artifact_id: picture.artifact for picture in self._pictures.get(execution_id, ())}
        for artifact_id in self._store.missing(artifacts) if artifacts else ():
            self._store.record(artifact_id, artifacts[artifact_id])

    def forget(self, execution_id: str) -> None:
        """Drop an execution whose end is on disk, or somebody else's affair."""
        self._pictures.pop(execution_id, None)

    def discard(self, execution_id: str) -> None:
        """Drop an execution that will have no answer, and delete what was stored of it."""
        for picture in self._pictures.pop(execution_id, ()):
            self._submit(self._delete, picture)

    def _is_stored(self, picture: _Picture) -> bool:
        if not picture.future.done():
            return False
        error = picture.future.exception()
        if error is None:
            return True
        if not (isinstance(error, redis.RedisError) and will_pass(error)):
            if not isinstance(error, ArtifactStoreError) or picture.attempts >= ATTEMPTS:
                raise error
            log.warning("Picture %s could not be stored: %s Trying again.", picture.ref.artifact_id, error)
            picture.attempts += 1
        picture.future = self._submit(self._put, picture.ref.artifact_id, picture.artifact, RETRY_S)
        return False

    def _put(self, artifact_id: str, artifact: Artifact, after_s: float) -> None:
        time.sleep(after_s)
        self._store.put(artifact_id, artifact)

    def _delete(self, picture: _Picture) -> None:
        with suppress(redis.RedisError, WorkersError):  # it expires by itself
            picture.future.exception()  # not before it was written
            self._store.delete(picture.ref.artifact_id)

    def _submit(self, work: Callable[..., None], *arguments: Any) -> Future[None]:
        future = self._threads.submit(work, *arguments)
        future.add_done_callback(lambda _: self._ring())
        return future
