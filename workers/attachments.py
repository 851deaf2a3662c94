"""Pictures that jobs begin from: fetched by threads before the engine is given the job, checked to be its tenant's."""

from __future__ import annotations

import base64
import logging
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

import redis

from workers.artifacts import ArtifactStore
from workers.contract import Failure, ImageBody
from workers.errors import ArtifactNotFoundError, ArtifactStoreError, WorkersError
from workers.execution_slots import Slot
from workers.redis_connection import will_pass

log = logging.getLogger("palaver.worker")

#: The store's library has its own patience; after so many times of that the attempt has failed.
ATTEMPTS = 3
RETRY_S = 0.3

_GONE = "The picture to begin from has expired or was deleted. Send it again."


@dataclass(frozen=True, slots=True)
class Unfetchable:
    """A job cannot begin.

    Args:
        failure: Why, for its user.
        retryable: Whether another attempt may help; otherwise its request is refused.
    """

    failure: Failure
    retryable: bool


@dataclass(slots=True)
class _Fetch:
    future: Future[dict[str, str]]
    attempts: int = 1


class Attachments:
    """What jobs bring along, for one worker.

    Args:
        store: Where pictures lie.
        threads: Who fetches.
        ring: Wakes the worker's loop; called from threads.
    """

    def __init__(self, store: ArtifactStore, threads: Executor, ring: Callable[[], None]) -> None:
        self._store = store
        self._threads = threads
        self._ring = ring
        self._fetches: dict[str, _Fetch] = {}

    def body(self, slot: Slot) -> dict[str, Any] | Unfetchable | None:
        """What the engine is given of a job.

        Returns:
            The body as JSON, pictures in it in base64; None while they are being fetched.
        """
        request = slot.job.request
        wanted = _pictures_of(request.body)
        if not wanted:
            return request.body.model_dump(mode="json")
        fetch = self._fetches.get(slot.id)
        if fetch is None:
            self._fetches[slot.id] = _Fetch(self._begin(wanted, request.tenant, 0.0))
            return None
        if not fetch.future.done():
            return None
        try:
            pictures = fetch.future.result()
        except (redis.RedisError, ArtifactStoreError) as error:
            if isinstance(error, redis.RedisError) and not will_pass(error):
                raise
            if isinstance(error, ArtifactStoreError) and fetch.attempts >= ATTEMPTS:
                return Unfetchable(Failure(code=error.code, message=str(error)), retryable=True)
            fetch.future = self._begin(wanted, request.tenant, RETRY_S)
            fetch.attempts += isinstance(error, ArtifactStoreError)
            return None
        except WorkersError as error:
            return Unfetchable(Failure(code=error.code, message=str(error)), retryable=False)
        return request.body.model_dump(mode="json") | pictures

    def forget(self, execution_id: str) -> None:
        """Drop what was fetched: the engine has it, or the execution has ended."""
        self._fetches.pop(execution_id, None)

    def _begin(self, wanted: dict[str, str], tenant: str, after_s: float) -> Future[dict[str, str]]:
        future = self._threads.submit(self._fetch, wanted, tenant, after_s)
        future.add_done_callback(lambda _: self._ring())
        return future

    def _fetch(self, wanted: dict[str, str], tenant: str, after_s: float) -> dict[str, str]:
        time.sleep(after_s)
        found = {}
        for name, artifact_id in wanted.items():
            try:
                artifact = self._store.get(artifact_id)
            except ArtifactNotFoundError:
                raise ArtifactNotFoundError(_GONE) from None
            if artifact.tenant != tenant:  # told like one that is gone: nobody learns what others have
                raise ArtifactNotFoundError(_GONE)
            found[name] = base64.b64encode(artifact.data).decode()
        return found


def _pictures_of(body: object) -> dict[str, str]:
    """The pictures that a job begins from: field of its body, and id."""
    if not isinstance(body, ImageBody):
        return {}
    named = {"init_image": body.init_image, "mask_image": body.mask_image}
    return {name: artifact_id for name, artifact_id in named.items() if artifact_id is not None}
