"""Promoted adapters as a chat engine asks for them: who has one is read anew every second, without a restart."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from generation.errors import GenerationError
from generation.tuning.place import is_there

if TYPE_CHECKING:
    import torch

    from generation.chat.adapters import Weights
    from generation.tuning.store import AdapterStore

_LOG = logging.getLogger("palaver.chat.adapters")

#: How old the knowledge of who has which adapter may be.
REFRESH_S = 1.0
#: A store that fails is left alone for so long; what was known last holds meanwhile.
_PAUSE_S = 30.0


class PromotedAdapters:
    """See ``generation.chat.adapter_shelf.AdapterSource``.

    Args:
        url: Of the store; a file that does not exist yet is looked for again.
        identity: Of the model.
        device: Where it computes.
        dtype: In which numbers.
    """

    def __init__(self, url: str, identity: str, device: torch.device, dtype: torch.dtype) -> None:
        self._url = url
        self._identity = identity
        self._device = device
        self._dtype = dtype
        self._store: AdapterStore | None = None
        self._answering: dict[str, str] = {}
        self._due_s = 0.0

    def promoted(self, tenant: str) -> str | None:
        """As ``AdapterSource.promoted``."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + REFRESH_S
            try:
                store = self._opened()
                self._answering = store.answering(self._identity) if store is not None else {}
            except GenerationError as error:
                _LOG.error("Who has which adapter is not known anew for %.0f s: %s", _PAUSE_S, error)
                self._due_s = now_s + _PAUSE_S
        return self._answering.get(tenant)

    def weights(self, adapter_id: str) -> Weights:
        """As ``AdapterSource.weights``."""
        from generation.chat.adapter_file import read

        store = self._opened()
        config, data = store.file(adapter_id) if store is not None else ({}, b"")
        return read(config, data, self._device, self._dtype)

    def _opened(self) -> AdapterStore | None:
        if self._store is None:
            if not is_there(self._url):
                return None
            from generation.tuning.store import AdapterStore  # with SQLAlchemy, a third of a second

            self._store = AdapterStore(self._url)
        return self._store
