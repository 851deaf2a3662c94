"""``palaver worker``: one worker process for each kind and device, kept alive, and the queue kept in order.

The processes form one tree that dies as a whole: every child asks the kernel to be killed with its parent. Children
have sessions of their own, so that Ctrl-C reaches this process alone, which then ends them in order.

rq's scheduler gets no process of its own: only retries with an interval are ever scheduled, and maintenance enqueues
those that are due.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import redis
from rq.serializers import JSONSerializer

from generation import devices as machine
from workers import device_probe, keys, redis_connection
from workers.artifacts import ArtifactStore
from workers.contract import Kind
from workers.errors import EngineStartError, SettingsError, WorkersError
from workers.fair_queue import FairQueue
from workers.log_format import LogFormat
from workers.maintenance import Maintenance
from workers.metrics import WORKER_RESTARTS
from workers.orders import Orders
from workers.settings import (
    ArtifactSettings,
    ChatModelSettings,
    ImageModelSettings,
    KnowledgeSettings,
    LimitSettings,
    MetricsSettings,
    ModerationSettings,
    ProvenanceSettings,
    RedisSettings,
    TracingSettings,
    WorkerSettings,
)
from workers.worker_process import EXIT_PERMANENT, WorkerConfig, reveal

log = logging.getLogger("palaver.supervisor")

FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
#: A worker that ran this long was well; its next restart is at once again.
WELL_AFTER_S = 60.0
#: A permanent failure may still be a race (a model just being converted by another process): it is tried again once.
PERMANENT_FAILURES = 2
STOP_MARGIN_S = 10.0
OFF = MetricsSettings()
NO_TRACES = TracingSettings()
#: What builds the engine of each kind, in its own process.
FACTORIES: dict[Kind, str] = {
    "chat": "generation.chat.factory:build",
    "image": "generation.image.factory:build",
    "answer": "generation.answers.factory:build",
}


_Model = ChatModelSettings | ImageModelSettings | KnowledgeSettings


@dataclass(slots=True)
class _Child:
    """One worker process and its successors."""

    config: WorkerConfig
    process: subprocess.Popen[str] | None = None
    started_at: float = 0.0
    start_at: float = 0.0
    pause_s: float = FIRST_PAUSE_S
    permanent_failures: int = 0
    finished: bool = False

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "workers.worker_process", str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            env=_environment(int(self.config.options.get("threads", 0))),
        )
        self.started_at = time.monotonic()
        if self.process.stdin is not None:
            with suppress(BrokenPipeError):  # it died at once; its exit code tells
                self.process.stdin.write(self.config.to_json())
                self.process.stdin.close()

    def last_words(self) -> dict[str, Any]:
        """What an ended process said about its failure."""
        if self.process is None or self.process.stdout is None:
            return {}
        lines = self.process.stdout.read().strip().splitlines()
        self.process.stdout.close()
        with suppress(ValueError):
            said = json.loads(lines[-1]) if lines else {}
            return said if isinstance(said, dict) else {}
        return {}


def worker_configs(
    kinds: Sequence[Kind],
    devices: str,
    *,
    redis_settings: RedisSettings,
    data_dir: Path,
    worker: WorkerSettings,
    limits: Mapping[Kind, LimitSettings],
    chat: ChatModelSettings,
    image: ImageModelSettings,
    knowledge: KnowledgeSettings,
    artifacts: ArtifactSettings,
    moderation: ModerationSettings,
    provenance: ProvenanceSettings,
    log_level: str = "WARNING",
    log_format: LogFormat = "text",
    metrics: MetricsSettings = OFF,
    tracing: TracingSettings = NO_TRACES,
) -> list[WorkerConfig]:
    """One configuration for each model and device.

    Args:
        kinds: Which kinds of model.
        devices: ``auto``, or names with commas between: see ``device_probe.devices``.
        redis_settings: Which server.
        data_dir: The product's data directory.
        worker: How workers take and keep jobs.
        limits: The caps on jobs in flight, by kind.
        chat: Which chat model.
        image: Which image model.
        knowledge: What questions are answered from.
        artifacts: Where pictures lie.
        moderation: What filters prompts, answers and pictures.
        provenance: How pictures are marked.
        log_level: Of the children.
        log_format: Likewise.
        metrics: Where they answer Prometheus.
        tracing: Where their spans go.

    Raises:
        SettingsError: No such device.
    """
    models: dict[Kind, _Model] = {"chat": chat, "image": image, "answer": knowledge}
    around: dict[Kind, dict[str, Any]] = {
        "chat": {"moderation": moderation.model_dump(), "adapters_url": knowledge.url},
        "image": {"moderation": moderation.model_dump(), "provenance": provenance.model_dump()},
        "answer": {"moderation": moderation.model_dump()},
    }
    return [
        WorkerConfig(
            kind=kind,
            name=f"{keys.queue(kind, model)}-{device.replace(':', '')}",
            redis=redis_settings,
            data_dir=data_dir,
            limits=limits[kind],
            worker=worker,
            artifacts=artifacts,
            model=model,
            factory=FACTORIES[kind],
            options=reveal({**_options(models[kind], model), "data_dir": data_dir, "device": device, **around[kind]}),
            log_level=log_level.upper(),
            log_format=log_format,
            metrics=metrics,
            tracing=tracing,
        )
        for kind in kinds
        for model in (None, *_more_models(models[kind]))
        for device in _devices(models[kind], devices)
    ]


def _options(settings: _Model, model: str | None) -> dict[str, Any]:
    """What the engine of one of the configured models is built with."""
    chosen = settings.model_dump(exclude={"more_models"})
    return chosen if model is None else {**chosen, "model": model}


def _more_models(settings: _Model) -> tuple[str, ...]:
    return () if isinstance(settings, KnowledgeSettings) else settings.more_models


def _devices(model: _Model, devices: str) -> list[str]:
    if isinstance(model, KnowledgeSettings):
        return ["cpu"]  # the embedding model is small and runs there; one process serves the store of this machine
    names = device_probe.devices(model.device if devices == "auto" else devices)
    if not names:
        raise SettingsError("There is no CUDA device here. Use --devices cpu, or look at nvidia-smi.")
    if isinstance(model, ChatModelSettings) and model.backend == "openai":
        return names[:1]  # the model runs elsewhere: a second worker here would only be a second line to it
    return names


def _environment(threads: int) -> dict[str, str]:
    """OpenMP reads its variables when torch is loaded, so engines must inherit them; what is set by hand stays."""
    wanted = machine.engine_environment(threads)
    return dict(os.environ) | wanted if threads else wanted | dict(os.environ)


class Supervisor:
    """Keeps worker processes running until told to stop.

    Args:
        configs: One for each process.
        maintenance_s: Seconds between two rounds of maintenance.
    """

    def __init__(self, configs: Sequence[WorkerConfig], maintenance_s: float = 5.0) -> None:
        if not configs:
            raise ValueError("A supervisor needs at least one worker.")
        self._children = [_Child(config) for config in configs]
        self._maintenance_s = maintenance_s
        self._orders = Orders()
        self._ended = threading.Event()

    def run(self) -> None:
        """Work until SIGTERM or SIGINT, then drain; a second signal gives running jobs back at once.

        Raises:
            EngineStartError: A worker cannot start, and trying again would not help.
            WorkersError: Likewise, for another reason.
        """
        janitor = threading.Thread(target=self._maintain, name="maintenance", daemon=True)
        with self._signals():
            janitor.start()
            try:
                self._keep_running()
            finally:
                self._ended.set()
                self._stop_all()
                janitor.join(timeout=self._maintenance_s)

    def _keep_running(self) -> None:
        while not self._orders.shutdowns:
            for child in self._children:
                self._look_after(child)
            self._sleep(0.2)
            self._orders.hush()

    def _look_after(self, child: _Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.start_at:
                child.start()
            return
        status = child.process.poll()
        if status is None:
            return
        said = child.last_words()
        child.process = None
        if status == EXIT_PERMANENT:
            child.permanent_failures += 1
            if child.permanent_failures >= PERMANENT_FAILURES:
                raise _failure(child.config, said)
        if time.monotonic() - child.started_at > WELL_AFTER_S:
            child.pause_s, child.permanent_failures = FIRST_PAUSE_S, 0
        reason = said.get("message", f"exit status {status}")
        log.warning("Worker %s ended (%s); next start in %.1f s.", child.config.name, reason, child.pause_s)
        WORKER_RESTARTS.labels(child.config.kind).inc()
        child.start_at = time.monotonic() + child.pause_s
        child.pause_s = min(child.pause_s * 2, LONGEST_PAUSE_S)

    def _stop_all(self) -> None:
        """End every child: orderly, at once after a second signal, by force when its time is over."""
        drain_s = max(child.config.worker.drain_s for child in self._children)
        until_s = time.monotonic() + drain_s + STOP_MARGIN_S
        told = 0
        while running := [child.process for child in self._children if child.process and child.process.poll() is None]:
            if told < max(1, self._orders.shutdowns):
                told += 1
                for process in running:
                    process.send_signal(signal.SIGTERM)
            if time.monotonic() > until_s:
                for process in running:
                    process.kill()
            self._sleep(0.05)

    def _maintain(self) -> None:
        """A thread: Redis may be slow to answer, and children are looked after meanwhile."""
        kinds = {child.config.kind: child.config for child in self._children}
        jobs: list[Maintenance] = []
        while not self._ended.wait(self._maintenance_s):
            try:
                jobs = jobs or [_maintenance(config) for config in kinds.values()]
                for each in jobs:
                    each.tick()
            except (redis.RedisError, WorkersError) as error:
                log.warning("Maintenance waits: %s", error)

    def _sleep(self, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._orders, select.POLLIN)
        poll.poll(int(timeout_s * 1000))

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def hear(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001 - a signal handler
            self._orders.shut_down()

        previous = {number: signal.signal(number, hear) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)
            self._orders.close()


def _maintenance(config: WorkerConfig) -> Maintenance:
    client = redis_connection.connect(config.redis, config.data_dir)
    queue = FairQueue(keys.queue(config.kind, config.model), connection=client, serializer=JSONSerializer)
    pictures = ArtifactStore(client, config.artifacts, config.data_dir) if config.kind == "image" else None
    return Maintenance(queue, pictures)


def _failure(config: WorkerConfig, said: dict[str, Any]) -> WorkersError:
    message = str(said.get("message", "it gave no reason; see its log"))
    return EngineStartError(
        f"The {config.kind} worker cannot start: {message}", code=str(said.get("code", "engine_start")), permanent=True
    )
