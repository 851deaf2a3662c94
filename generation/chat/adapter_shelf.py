"""Which adapter answers for a tenant: loaded when first asked for, and the idle ones leave memory first."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol

from generation.chat.adapters import Adapter, Weights
from generation.errors import AdapterError, GenerationError

_LOG = logging.getLogger("palaver.chat.adapters")


class AdapterSource(Protocol):
    """Where promoted adapters come from."""

    def promoted(self, tenant: str) -> str | None:
        """Id of the adapter that answers for a tenant now; None for the model alone. Called for each request."""
        ...

    def weights(self, adapter_id: str) -> Weights:
        """Read an adapter, to the model's device.

        Raises:
            GenerationError: It is missing or broken, or the store cannot be used.
        """
        ...


class AdapterShelf:
    """Adapters of one engine.

    An adapter that cannot be had is told to the operator once, and the model answers alone: an answer in the general
    tone is better than none. A sequence keeps the adapter that it began with, promoted or not.

    Args:
        source: Where they come from.
        bind: Makes one ready for this engine's decoder.
        capacity_bytes: Most memory of adapters that are kept; those of running requests stay beyond it.
    """

    def __init__(self, source: AdapterSource, bind: Callable[[str, Weights], Adapter], capacity_bytes: int) -> None:
        self._source = source
        self._bind = bind
        self._capacity_bytes = capacity_bytes
        self._loaded: OrderedDict[str, Adapter] = OrderedDict()
        self._broken: set[str] = set()

    @property
    def names(self) -> list[str]:
        """Ids of what is in memory, the one asked for last at the end."""
        return list(self._loaded)

    def of(self, tenant: str) -> Adapter | None:
        """A tenant's adapter, loaded if need be."""
        adapter_id = self._source.promoted(tenant)
        if adapter_id is None or adapter_id in self._broken:
            return None
        adapter = self._loaded.get(adapter_id) or self._load(adapter_id, tenant)
        if adapter is not None:
            self._loaded[adapter_id] = adapter
            self._loaded.move_to_end(adapter_id)
            self._unload()
        return adapter

    def clear(self) -> None:
        """Give all of it back."""
        self._loaded.clear()

    def _load(self, adapter_id: str, tenant: str) -> Adapter | None:
        try:
            adapter = self._bind(adapter_id, self._source.weights(adapter_id))
        except GenerationError as error:
            if isinstance(error, AdapterError):  # the store may be back at the next request; a broken file stays so
                self._broken.add(adapter_id)
            _LOG.error("Adapter %s of %s is not used, and the model answers alone: %s", adapter_id, tenant, error)
            return None
        _LOG.info("adapter %s of %s is loaded: %.1f MB", adapter_id, tenant, adapter.size_bytes / 1e6)
        return adapter

    def _unload(self) -> None:
        while len(self._loaded) > 1 and sum(each.size_bytes for each in self._loaded.values()) > self._capacity_bytes:
            self._loaded.popitem(last=False)
