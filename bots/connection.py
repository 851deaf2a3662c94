"""From settings to a client of the queue, as every front-end needs one."""

from __future__ import annotations

from bots.settings import Settings
from workers import redis_connection
from workers.artifacts import ArtifactStore
from workers.client import Client


def client_of(settings: Settings) -> Client:
    """A client of the queue with the limits of every kind, the budgets and the configured store of pictures.

    Raises:
        SettingsError: The server's or the store's settings are wrong.
    """
    connection = redis_connection.connect_async(settings.redis, settings.data_dir)
    sync_connection = redis_connection.connect(settings.redis, settings.data_dir)
    artifacts = ArtifactStore(sync_connection, settings.artifacts, settings.data_dir)
    return Client(
        connection,
        sync_connection,
        settings.limits.by_kind,
        settings.worker,
        artifacts=artifacts,
        budgets=settings.budgets,
    )
