"""What front-ends use of the queue: submit, position, follow, cancel."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import redis
import redis.asyncio
from rq import Retry
from rq.exceptions import DuplicateJobError
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import as_text

from workers import keys, redis_connection, tracing
from workers.admission import RECORD_TTL_S, Duplicate, admit
from workers.artifacts import Artifact, ArtifactStore, checked_media_type, upload_id
from workers.budgets import budgets_of
from workers.cancellation import CancelOutcome, cancel
from workers.contract import Event, Kind, Quota, Request, decode_event, encode
from workers.doorbell import Doorbell
from workers.errors import RedisUnavailableError, RefusedError
from workers.fair_queue import FairQueue
from workers.follower import Ended, Follower, ImageProgress, Queued, Restarted, TextDelta, Update
from workers.metrics import ADMISSIONS
from workers.position import Position, position
from workers.rates import Rates
from workers.served_models import queue_of, served_models
from workers.settings import ArtifactSettings, BudgetSettings, LimitSettings, WorkerSettings
from workers.usage import NO_BUDGETS, Usage, forget, tenants_of, usage

__all__ = [
    "CancelOutcome",
    "Client",
    "Ended",
    "ImageProgress",
    "Queued",
    "Restarted",
    "Submitted",
    "TextDelta",
    "Update",
]

#: A killed Redis may forget the last seconds; a submission older than this is on its disk.
_FORGETTABLE_S = 60.0

_logger = logging.getLogger("palaver.client")


@dataclass(frozen=True, slots=True)
class Submitted:
    """A request is in the queue, or was before.

    Args:
        job_id: What to follow.
        duplicate: Whether the same idempotency key had been submitted before; follow that job, post no second answer.
    """

    job_id: str
    duplicate: bool


@dataclass(frozen=True, slots=True)
class _Submission:
    """A request that Redis might still forget, its queue, and which run of the server has it."""

    request: Request
    queue: str
    run_id: str
    at_s: float


class Client:
    """A front-end's connection to the queue; use one for the life of a process.

    Args:
        connection: Client for asyncio, returning bytes.
        sync_connection: Client of the same server for rq, which is synchronous.
        limits: Rates that requests are held to, for each kind or for all of them.
        worker: Attempts and times of life that jobs are given.
        outage_s: How long Redis may be away before a follower gives up.
        artifacts: Where pictures lie; by default in Redis.
        budgets: How much GPU time may be used.
    """

    def __init__(
        self,
        connection: redis.asyncio.Redis,
        sync_connection: redis.Redis,
        limits: LimitSettings | Mapping[Kind, LimitSettings],
        worker: WorkerSettings,
        outage_s: float = 120.0,
        artifacts: ArtifactStore | None = None,
        budgets: BudgetSettings = NO_BUDGETS,
    ) -> None:
        self._redis = connection
        self._sync = sync_connection
        self._rates = Rates(limits)
        self._worker = worker
        self._budgets = budgets
        self._outage_s = outage_s
        self._artifacts = artifacts or ArtifactStore(sync_connection, ArtifactSettings(), Path())
        self._doorbell = Doorbell(connection)
        self._run_id = ""
        self._submissions: dict[str, _Submission] = {}

    @property
    def connection(self) -> redis.asyncio.Redis:
        """Its asyncio client, for whatever else a front-end keeps in Redis."""
        return self._redis

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; running followers end with an error."""
        await self._doorbell.close()
        await self._redis.aclose()
        self._sync.close()

    async def submit(self, request: Request) -> Submitted:
        """Charge limits and budgets and enqueue, each once for an idempotency key however often this is called.

        Should the process die between the two, the next submission of the same key enqueues without another charge.

        Raises:
            RefusedError: A limit or a budget says no, or nobody runs the model that it names; nothing was charged.
            RedisUnavailableError: Redis is away; submit the same request again later.
        """
        return await self._submit(request, await self._queue_of(request))

    async def _queue_of(self, request: Request) -> str:
        if request.model is None:
            return keys.queue(request.kind)
        with redis_connection.mapped_errors(self._redis):
            if origin := await self._redis.hget(Job.key_for(request.job_id), "origin"):
                return as_text(origin)  # it exists, whatever runs by now
            return await queue_of(self._redis, request.kind, request.model)

    async def _submit(self, request: Request, queue: str) -> Submitted:
        begun_s = time.time()
        with redis_connection.mapped_errors(self._redis):
            record_ttl_s = max(RECORD_TTL_S, self._worker.result_ttl_s)
            limits = self._rates.of(request)
            budgets = budgets_of(
                request.quota or self._budgets, request.tenant, request.user, request.cost_gpu_s, time.time()
            )
            try:
                admission = await admit(self._redis, request.job_id, limits, budgets, record_ttl_s=record_ttl_s)
            except RefusedError as refusal:
                ADMISSIONS.labels(request.kind, refusal.limit).inc()
                raise
            outcome = "duplicate" if isinstance(admission, Duplicate) else "admitted"
            ADMISSIONS.labels(request.kind, outcome).inc()
            if isinstance(admission, Duplicate) and await self._redis.hexists(keys.live(request.job_id), "final"):
                # It has ended, and rq may have dropped the job already: the answer is still to be had.
                return Submitted(request.job_id, duplicate=True)
            request = tracing.submitted(request, begun_s, time.time())
            enqueued = await asyncio.to_thread(self._enqueue, request, queue)
            await self._remember(request, queue)
        return Submitted(request.job_id, duplicate=not enqueued)

    async def position(self, job_id: str) -> Position | None:
        """Place in the queue and estimated seconds to the start; None if the job does not wait.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            origin = await self._redis.hget(Job.key_for(job_id), "origin")
            return await position(self._redis, as_text(origin), job_id) if origin else None

    async def models(self, kind: Kind) -> list[str]:
        """The models that requests may name now, the usual one first; see ``workers.served_models``.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            return list(await served_models(self._redis, kind))

    async def usage(self, tenant: str, user: str, quota: Quota | None = None) -> Usage:
        """What a tenant, and a user within it, have used today and this month (UTC).

        Args:
            tenant: Whose.
            user: Whose within it.
            quota: Which budgets hold for that user; None for the operator's general ones.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            return await usage(self._redis, tenant, user, quota or self._budgets)

    async def forget_usage(self, user: str, platform: str, tenant: str | None = None) -> None:
        """Delete what a person's accounts tell; see ``usage.forget`` for what stays until its period ends.

        Args:
            user: Whose.
            platform: Where that is the user's name.
            tenant: In which tenant; None for all of the platform's.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            for owner in await tenants_of(self._redis, user):
                if owner == tenant or (tenant is None and owner.startswith(f"{platform}-")):
                    await forget(self._redis, owner, user)

    async def cancel(self, job_id: str, user: str, moderator: bool = False) -> CancelOutcome:
        """Stop a job, queued or running. One that never ran is refunded here, a running one by its worker.

        Args:
            job_id: Which one.
            user: Who wants it stopped.
            moderator: Whether that user may stop others' jobs of this job's tenant.

        Returns:
            What happened.

        Raises:
            JobNotFoundError: No such job, or it has expired.
            NotAllowedError: It is somebody else's.
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            return await asyncio.to_thread(cancel, self._sync, job_id, user, moderator)

    def follow(self, job_id: str) -> AsyncIterator[Update]:
        """Everything about a job from the start of its current attempt to its end, for any number of readers.

        A job that this process submitted and that a killed Redis has forgotten is submitted again.

        Raises:
            JobNotFoundError: The job does not exist, was deleted, or its answer has expired.
            RedisUnavailableError: Redis was away for longer than ``outage_s``.
        """
        return Follower(self._redis, self._doorbell, job_id, self._outage_s, self._restore).updates()

    async def known(self, job_id: str) -> bool:
        """Whether a job exists, waits, runs or has ended lately.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            return bool(await self._redis.exists(Job.key_for(job_id), keys.live(job_id)))

    async def ended(self, job_id: str) -> Event | None:
        """A job's terminal event, while it is kept.

        Raises:
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            final = await self._redis.hget(keys.live(job_id), "final")
        return decode_event(final) if final else None

    # Pictures

    async def artifact(self, artifact_id: str) -> bytes:
        """The bytes of a finished picture, or of one that was sent.

        Raises:
            ArtifactNotFoundError: It has expired, or was deleted.
            ArtifactStoreError: The store of pictures failed.
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            return (await asyncio.to_thread(self._artifacts.get, artifact_id)).data

    async def put_artifact(self, data: bytes, media_type: str | None = None, *, tenant: str, user: str) -> str:
        """Store a picture to begin from; the same picture of the same person again gets the same id.

        Args:
            data: Encoded: PNG, JPEG or WebP.
            media_type: What it is said to be; None believes the bytes.
            tenant: Whose; only jobs of this tenant may use it.
            user: Who may delete it.

        Returns:
            Its id, for ``ImageBody.init_image`` or ``mask_image``.

        Raises:
            ArtifactError: It is too large, or not the picture that it is said to be.
            ArtifactStoreError: The store of pictures failed.
            RedisUnavailableError: Redis is away.
        """
        artifact = Artifact(data, checked_media_type(data, media_type), tenant, user)
        artifact_id = upload_id(data, tenant, user)
        with redis_connection.mapped_errors(self._redis):
            await asyncio.to_thread(self._artifacts.put, artifact_id, artifact)
        return artifact_id

    async def delete_artifact(self, artifact_id: str, *, tenant: str, user: str, moderator: bool = False) -> bool:
        """Delete a picture for good; one that is gone already is no error.

        Args:
            artifact_id: Which.
            tenant: On whose behalf.
            user: Who wants it deleted.
            moderator: Whether that user may delete others' pictures of the tenant.

        Returns:
            Whether there was one.

        Raises:
            NotAllowedError: It is somebody else's.
            ArtifactStoreError: The store of pictures failed.
            RedisUnavailableError: Redis is away.
        """
        with redis_connection.mapped_errors(self._redis):
            return await asyncio.to_thread(self._artifacts.delete_owned, artifact_id, tenant, user, moderator)

    async def _remember(self, request: Request, queue: str) -> None:
        """Keep a request until it is certainly on Redis' disk."""
        now_s = time.monotonic()
        self._run_id = self._run_id or await self._server_run_id()
        self._submissions.pop(request.job_id, None)  # the order is that of the submissions
        self._submissions[request.job_id] = _Submission(request, queue, self._run_id, now_s)
        for job_id, submission in list(self._submissions.items()):
            if submission.at_s > now_s - _FORGETTABLE_S:
                break
            del self._submissions[job_id]

    async def _restore(self, job_id: str) -> bool:
        """Submit a job again that is missing since a restart of the server; one that was deleted stays deleted."""
        submission = self._submissions.get(job_id)
        if submission is None:
            return False
        try:
            self._run_id = await self._server_run_id()
            if self._run_id == submission.run_id:
                return False
            _logger.warning("Redis was restarted and has forgotten job %s, which is submitted again.", job_id)
            await self._submit(submission.request, submission.queue)
        except RefusedError:
            return False
        except (redis.ConnectionError, redis.TimeoutError, RedisUnavailableError):
            pass  # away again: the reader sees to that
        return True

    async def _server_run_id(self) -> str:
        return str((await self._redis.info("server"))["run_id"])

    def _enqueue(self, request: Request, queue: str) -> bool:
        """Enqueue through stock rq; returns whether the job is new."""
        retries = self._worker.max_attempts - 1
        try:
            self._queue(queue).enqueue_call(
                f"palaver.{request.kind}",
                kwargs={"request": json.loads(encode(request))},
                timeout=math.ceil(request.timeout_s),
                result_ttl=self._worker.result_ttl_s,
                failure_ttl=self._worker.result_ttl_s,
                description=f"{request.kind} of {request.tenant}",  # rq logs it: it must not tell the prompt
                job_id=request.job_id,
                retry=Retry(max=retries) if retries else None,
                unique=True,
            )
        except DuplicateJobError:
            return False
        return True

    def _queue(self, name: str) -> FairQueue:
        return FairQueue(name, connection=self._sync, serializer=JSONSerializer)
