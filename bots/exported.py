"""What a front-end process answers to Prometheus and to whoever restarts it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis

from bots.settings import Settings
from workers import metrics_server, queue_metrics, redis_connection, tracing


@contextmanager
def exported(settings: Settings, name: str) -> Iterator[None]:
    """Answer ``/metrics``, ``/healthz`` and ``/readyz`` if a port is set, and export traces if an endpoint is.

    Args:
        settings: Where, and which server holds the queues.
        name: Of the front-end.
    """
    with tracing.exporting(settings.tracing, name):
        if settings.metrics.port is None:
            yield
            return
        with redis_connection.connect(settings.redis, settings.data_dir) as client:
            queue_metrics.export(client)
            with metrics_server.serving(settings.metrics, settings.data_dir, name, lambda: _answers(client)):
                yield


def _answers(client: redis.Redis) -> bool:
    """Whether Redis does: a front-end without it accepts nothing."""
    try:
        return bool(client.ping())
    except (redis.RedisError, OSError):
        return False
