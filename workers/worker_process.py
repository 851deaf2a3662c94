"""One worker process: connects, serves one queue with one engine, ends with an exit code that says why.

Started by the supervisor as ``python -m workers.worker_process PARENT_PID`` with its configuration as JSON on standard
input, where secrets are safe from ``ps``. A failure to start is told in one line of JSON on standard output.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from rq.serializers import JSONSerializer

from workers import keys, log_format, metrics_server, redis_connection, tracing
from workers.artifacts import ArtifactStore
from workers.batch_worker import BatchWorker
from workers.contract import Kind
from workers.engine_process import EngineSpec
from workers.errors import EngineStartError, WorkersError
from workers.fair_queue import FairQueue
from workers.log_format import LogFormat
from workers.process_tree import die_with_parent
from workers.settings import (
    ArtifactSettings,
    LimitSettings,
    MetricsSettings,
    RedisSettings,
    TracingSettings,
    WorkerSettings,
)

#: After this exit code (sysexits.h, EX_CONFIG) starting again cannot help.
EXIT_PERMANENT = 78
#: After this one (EX_TEMPFAIL) it may.
EXIT_TEMPORARY = 75


class WorkerConfig(BaseModel):
    """Everything a worker process needs to know.

    Attributes:
        name: The beginning of its name; every start appends a random part.
        model: The model, if it runs beside the kind's usual one; None for that.
        factory: See ``EngineSpec``.
        options: Likewise; secrets in it are plain.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Kind
    name: str
    redis: RedisSettings
    data_dir: Path
    limits: LimitSettings
    worker: WorkerSettings
    artifacts: ArtifactSettings = ArtifactSettings()
    model: str | None = None
    factory: str
    options: dict[str, Any] = Field(repr=False)
    log_level: str = "WARNING"
    log_format: LogFormat = "text"
    metrics: MetricsSettings = MetricsSettings()
    tracing: TracingSettings = TracingSettings()

    def to_json(self) -> str:
        """With its secrets, for the process's standard input only."""
        return json.dumps(reveal(self.model_dump()))


def reveal(value: Any) -> Any:
    """Plain JSON of dumped settings, secrets included."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, dict):
        return {name: reveal(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [reveal(item) for item in value]
    return str(value) if isinstance(value, Path) else value


@dataclass(frozen=True, slots=True)
class Farewell:
    """Why a worker process could not work."""

    code: str
    message: str
    permanent: bool

    def to_json(self) -> str:
        """One line."""
        return json.dumps({"code": self.code, "message": self.message, "permanent": self.permanent})


def serve(config: WorkerConfig) -> None:
    """Work until told to stop.

    Raises:
        WorkersError: Redis or the engine cannot be had.
    """
    client = redis_connection.connect(config.redis, config.data_dir)
    redis_connection.check(client)
    with redis_connection.mapped_errors(client):
        queue = FairQueue(keys.queue(config.kind, config.model), connection=client, serializer=JSONSerializer)
        queue.set_caps(config.limits.tenant_in_flight, config.limits.user_in_flight)
        # A name of its own for every start: rq keeps that of a killed worker for a while.
        name = f"{config.name}-{uuid4().hex[:8]}"
        artifacts = ArtifactStore(client, config.artifacts, config.data_dir)
        spec = EngineSpec(config.factory, config.options, config.log_format)
        worker = BatchWorker(queue, spec, config.worker, name, artifacts)
        process = f"{config.kind}-worker"
        with (
            tracing.exporting(config.tracing, process),
            metrics_server.serving(config.metrics, config.data_dir, process, lambda: worker.engine.ready),
        ):
            worker.work()


def main() -> int:
    """Entry point of the process."""
    die_with_parent(int(sys.argv[1]))
    config = WorkerConfig.model_validate_json(sys.stdin.read())
    log_format.configure(config.log_level, config.log_format)
    try:
        serve(config)
    except WorkersError as error:
        permanent = error.permanent if isinstance(error, EngineStartError) else error.exit_code != EXIT_TEMPORARY
        permanent = permanent and error.code != "redis_unavailable"
        sys.stdout.write(Farewell(error.code, str(error), permanent).to_json() + "\n")
        sys.stdout.flush()
        return EXIT_PERMANENT if permanent else EXIT_TEMPORARY
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
