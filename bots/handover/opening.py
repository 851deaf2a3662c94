"""The store of hand-overs, opened when it is needed first: starting stays fast, and most tenants never need it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bots.handover.store import SupportStore
    from bots.settings import Settings

_FILE = "support.sqlite"


class LateStore:
    """Opens it once.

    Args:
        settings: Where it lies.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._store: SupportStore | None = None
        self._lock = threading.Lock()

    @property
    def settings(self) -> Settings:
        """Where it lies."""
        return self._settings

    @property
    def is_there(self) -> bool:
        """Whether anything was ever kept."""
        return self._settings.knowledge.url is not None or (self._settings.data_dir / _FILE).is_file()

    def open(self) -> SupportStore:
        """The store.

        Raises:
            KnowledgeError: It cannot be opened.
        """
        with self._lock:
            if self._store is None:
                from bots.handover.store import SupportStore  # with SQLAlchemy, a third of a second

                self._settings.data_dir.mkdir(parents=True, exist_ok=True)
                self._store = SupportStore(
                    self._settings.knowledge.url or f"sqlite:///{self._settings.data_dir / _FILE}"
                )
            return self._store
