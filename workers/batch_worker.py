"""An rq worker that keeps many jobs in flight on one resident engine process.

To rq and its tools it is a worker like any other: registered, suspended, told to stop a job, listed with its
executions. Its work is done by ``WorkerLoop``; this is the side that faces rq.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.retry import Retry
from rq import worker_registration
from rq.command import parse_payload
from rq.serializers import JSONSerializer
from rq.worker import BaseWorker, WorkerStatus

from workers import keys
from workers.artifacts import ArtifactStore
from workers.engine_handle import EngineHandle
from workers.engine_process import EngineSpec
from workers.fair_queue import FairQueue
from workers.orders import Orders
from workers.outbox import OutboxJob
from workers.served_models import public_name
from workers.settings import ArtifactSettings, WorkerSettings
from workers.worker_loop import WorkerLoop

log = logging.getLogger("palaver.worker")

SOCKET_TIMEOUT_S = 10
#: Added to the lease: a worker that has said nothing for this long is gone from rq's list.
_TTL_MARGIN_S = 45


class BatchWorker(BaseWorker):
    """Runs one queue's jobs on one engine.

    Args:
        queue: What to work on; exactly one, for only then does rq recover what was popped and not started.
        spec: Which engine.
        settings: Leases, patience, limits.
        name: Unique among running workers; random if None.
        artifacts: Where pictures lie; by default in Redis.
    """

    queue_class = FairQueue
    job_class = OutboxJob

    def __init__(
        self,
        queue: FairQueue,
        spec: EngineSpec,
        settings: WorkerSettings | None = None,
        name: str | None = None,
        artifacts: ArtifactStore | None = None,
    ) -> None:
        super().__init__([queue], name=name, connection=queue.connection, serializer=JSONSerializer)
        self.log = log
        self._settings = settings or WorkerSettings()
        self._queue = queue
        self._model = public_name(str(spec.options.get("model", "")))
        self._artifacts = artifacts or ArtifactStore(self.connection, ArtifactSettings(), Path())
        self._orders = Orders()
        self.engine = EngineHandle(spec, silence_s=self._settings.engine_silence_s)
        self._loop: WorkerLoop | None = None

    def work(self, burst: bool = False, *positional: Any, **options: Any) -> bool:
        """Work until told to stop.

        Args:
            burst: Whether to end as soon as nothing is queued.
            *positional: None of rq's other options applies here.
            **options: Neither by name.

        Returns:
            Whether any job was settled.

        Raises:
            EngineStartError: The engine cannot be started.
        """
        if positional or options:
            raise TypeError("A batch worker's work() knows no option but burst.")
        self._loop = WorkerLoop(
            self._queue,
            self.engine,
            self._settings,
            self._orders,
            self.name,
            self.key,
            self._beat,
            self._artifacts,
            self._model,
        )
        self.register_birth()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        self.subscribe()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        self._install_signal_handlers()
        log.info("Worker %s listens on %s.", self.name, self._queue.name)
        try:
            self._loop.run(burst)
        finally:
            self._go()
        return self._loop.settled > 0

    # What rq asks of a worker

    def _set_connection(self, connection: redis.Redis) -> redis.Redis:
        """No repeated commands: a lost reply must be seen, because a MULTI that ends a job is not idempotent."""
        connection = super()._set_connection(connection)
        connection.set_retry(Retry(NoBackoff(), 0))
        return connection

    @property
    def connection_timeout(self) -> int:
        """Seconds after which a silent Redis counts as away; rq's own would be 415."""
        return SOCKET_TIMEOUT_S

    @property
    def horse_pid(self) -> int:
        """The engine's process id, which rq's tools show and kill."""
        return self.engine.pid

    def kill_horse(self, sig: signal.Signals = signal.SIGKILL) -> None:  # noqa: ARG002 - rq's signature
        """Have the engine killed and started again; called from the pub/sub thread."""
        self._orders.kill_engine = True
        self._orders.ring()

    def request_stop_execution(self, execution_id: str) -> None:
        """Stop one execution; called from the pub/sub thread."""
        self._orders.stop(execution_id)

    def handle_payload(self, message: dict[str, Any]) -> None:
        """Obey a command; rq's own handling of ``stop-job`` knows one job at a time only."""
        payload = parse_payload(message)
        if payload.get("command") == "stop-job":
            self._orders.stop(str(payload.get("job_id")))
        else:
            super().handle_payload(message)  # type: ignore[no-untyped-call]  # rq leaves it untyped

    def request_stop(self, signum: int, frame: FrameType | None) -> None:  # noqa: ARG002 - a signal handler
        """First signal: finish what runs. Second: give it back and go."""
        self._orders.shut_down()

    def request_force_stop(self, signum: int, frame: FrameType | None) -> None:
        """As ``request_stop``; rq's would exit in the middle of whatever is being written."""
        self.request_stop(signum, frame)

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        signal.set_wakeup_fd(self._orders.rope.fileno(), warn_on_full_buffer=False)

    # Signs of life

    def _beat(self, pipeline: Pipeline) -> None:
        """The heartbeat of rq, complete each time, so that a server that lost its memory knows this worker again."""
        ttl_s = int(self._settings.lease_s) + _TTL_MARGIN_S
        slots = self._loop.slots if self._loop else ()
        self.set_state(WorkerStatus.BUSY if slots else WorkerStatus.IDLE, pipeline=pipeline)
        self.heartbeat(ttl_s, pipeline=pipeline)
        pipeline.hset(self.key, mapping=self.serialize())
        worker_registration.register(self, pipeline)
        entry = {
            "kind": keys.kind_of(self._queue.name),
            "queue": self._queue.name,
            "model": self._model,
            "host": self.hostname,
            "pid": os.getpid(),
            "engine": asdict(self.engine.info) if self.engine.info else None,
            "progress": self.engine.progress,
            "in_flight": len(slots),
            "at_s": time.time(),
        }
        pipeline.hset(keys.workers(), self.name, json.dumps(entry))

    def _go(self) -> None:
        signal.set_wakeup_fd(-1)
        with suppress(redis.RedisError):  # entries expire by themselves
            self.connection.hdel(keys.workers(), self.name)
            self.register_death()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        with suppress(redis.RedisError):
            self.unsubscribe()  # type: ignore[no-untyped-call]  # rq leaves it untyped
        self._orders.close()
        log.info("Worker %s has ended.", self.name)
