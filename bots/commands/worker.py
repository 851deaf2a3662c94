"""``palaver worker``: workers for some kinds of model on some devices."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import get_args

import click

from bots import log, settings
from bots.settings import Settings
from bots.up_wants import report_failure
from generation import catalog
from generation.errors import GenerationError
from generation.image.config import EMBEDDED_MODEL
from workers import embedded_redis, metrics_server, queue_metrics, redis_connection
from workers.contract import Kind
from workers.errors import SettingsError, WorkersError
from workers.process_tree import die_with_parent
from workers.supervisor import Supervisor, worker_configs


@click.command("worker")
@click.option("--kinds", default="chat", show_default=True, help="Which kinds of model, with commas between.")
@click.option(
    "--devices",
    default="auto",
    show_default=True,
    help="Where: cpu, cuda:0,cuda:1 and so on; auto takes every GPU, or the CPU.",
)
@click.option("--parent", type=int, hidden=True, help="End when this process does.")
@click.option("--failure-file", type=click.Path(path_type=Path), hidden=True, help="Where to say why it cannot start.")
def command(kinds: str, devices: str, parent: int | None, failure_file: Path | None) -> None:
    """Run workers until stopped, one for each kind and device.

    The first SIGTERM or Ctrl-C lets running answers finish; a second gives them back to the queue at once.
    """
    configured = settings.load()
    log.configure(configured.log_level, configured.log_format)
    if parent is not None:
        die_with_parent(parent)
    try:
        _supervise(configured, _kinds(kinds), devices)
    except (WorkersError, GenerationError) as error:
        if failure_file is not None:
            report_failure(failure_file, error, error.exit_code)
        raise


def _supervise(configured: Settings, kinds: list[Kind], devices: str) -> None:
    with contextlib.ExitStack() as stack:
        if configured.redis.url is None:
            stack.enter_context(embedded_redis.ensure(configured.data_dir, configured.redis))
        client = stack.enter_context(redis_connection.connect(configured.redis, configured.data_dir))
        redis_connection.check(client)
        if "chat" in kinds and configured.chat.backend == "transformers":
            for model in (configured.chat.model, *configured.chat.more_models):
                catalog.resolve(model, configured.data_dir)  # a wrong name is told before anything loads
        if "image" in kinds:
            for model in (configured.image.model, *configured.image.more_models):
                if model != EMBEDDED_MODEL:
                    catalog.resolve(model, configured.data_dir)  # likewise
        supervisor = Supervisor(
            worker_configs(
                kinds,
                devices,
                redis_settings=configured.redis,
                data_dir=configured.data_dir,
                worker=configured.worker,
                limits=configured.limits.by_kind,
                chat=configured.chat,
                image=configured.image,
                knowledge=configured.knowledge,
                artifacts=configured.artifacts,
                moderation=configured.moderation,
                provenance=configured.provenance,
                log_level=configured.log_level,
                log_format=configured.log_format,
                metrics=configured.metrics,
                tracing=configured.tracing,
            )
        )
        if configured.metrics.port is not None:
            queue_metrics.export(client)
        with metrics_server.serving(configured.metrics, configured.data_dir, "supervisor"):
            supervisor.run()


def _kinds(text: str) -> list[Kind]:
    known: tuple[Kind, ...] = get_args(Kind)
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    for name in wanted:
        if name not in known:
            raise SettingsError(f"--kinds: there is no kind {name}; known are {', '.join(known)}.")
    if not wanted:
        raise SettingsError(f"--kinds names nothing; known are {', '.join(known)}.")
    return [kind for kind in known if kind in wanted]
