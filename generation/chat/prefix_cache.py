"""Keys and values of prompts and answers that ended, for requests that begin the same way."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence as Series
from dataclasses import dataclass

from generation.chat.kv_cache import Entry

#: Prefixes are indexed at multiples of this many tokens; within the last block they are compared token by token.
BLOCK_TOKENS = 16


@dataclass(eq=False, slots=True)
class _Stored:
    scope: str
    tokens: tuple[int, ...]
    entry: Entry
    blocks: tuple[int, ...]  # a hash for each whole block, each covering everything before it


@dataclass(frozen=True, slots=True)
class Match:
    """A stored beginning: the first ``tokens`` tokens of ``entry``."""

    entry: Entry
    tokens: int


class PrefixCache:
    """Least recently used out first, bounded by tokens.

    A prompt is looked up by hashes of its blocks, each chained to the one before, so a look-up costs one pass over
    the prompt however much is stored. A hit is compared token by token: a hash collision cannot give a wrong answer.
    What was computed with an adapter is found within its ``scope`` alone.

    Args:
        capacity_tokens: Most tokens stored in all; 0 turns the cache off.
    """

    def __init__(self, capacity_tokens: int) -> None:
        self.capacity_tokens = capacity_tokens
        self.used_tokens = 0
        self._stored: OrderedDict[tuple[str, tuple[int, ...]], _Stored] = OrderedDict()
        self._index: dict[int, _Stored] = {}

    def match(self, tokens: Series[int], longest: int, scope: str = "") -> Match | None:
        """The longest stored beginning of ``tokens``, at most ``longest`` tokens, at least one block."""
        found = None
        for digest in _blocks(tokens[:longest], scope):
            stored = self._index.get(digest)
            if stored is None:
                break
            found = stored
        if found is None or found.scope != scope:
            return None
        length = _common(found.tokens, tokens, longest)
        if length < BLOCK_TOKENS:
            return None
        self._stored.move_to_end((scope, found.tokens))
        return Match(found.entry, length)

    def wants(self, tokens: Series[int], scope: str = "") -> bool:
        """Whether storing this would add anything."""
        if not BLOCK_TOKENS <= len(tokens) <= self.capacity_tokens:
            return False
        blocks = _blocks(tokens, scope)
        return blocks[-1] not in self._index

    def store(self, tokens: Series[int], entry: Entry, scope: str = "") -> None:
        """Keep the keys and values of ``tokens``; what they extend is replaced by them."""
        key = tuple(tokens)
        if (scope, key) in self._stored or not BLOCK_TOKENS <= len(key) <= self.capacity_tokens:
            return
        stored = _Stored(scope, key, entry, _blocks(key, scope))
        for digest in stored.blocks:
            shorter = self._index.get(digest)
            if shorter is not None and shorter.scope == scope and shorter.tokens == key[: len(shorter.tokens)]:
                self._drop(shorter)
        self._stored[scope, key] = stored
        self.used_tokens += len(key)
        for digest in stored.blocks:
            self._index[digest] = stored
        while self.used_tokens > self.capacity_tokens:
            self._drop(next(iter(self._stored.values())))

    def clear(self) -> None:
        """Forget everything."""
        self._stored.clear()
        self._index.clear()
        self.used_tokens = 0

    def _drop(self, stored: _Stored) -> None:
        """Forget an entry; beginnings that others share keep leading to one of those."""
        del self._stored[stored.scope, stored.tokens]
        self.used_tokens -= len(stored.tokens)
        orphans = {digest for digest in stored.blocks if self._index.get(digest) is stored}
        for digest in orphans:
            del self._index[digest]
        if orphans:
            for other in self._stored.values():
                for digest in orphans.intersection(other.blocks):
                    self._index[digest] = other


def _blocks(tokens: Series[int], scope: str) -> tuple[int, ...]:
    digests: list[int] = []
    digest = hash(scope) if scope else 0
    for start in range(0, len(tokens) - BLOCK_TOKENS + 1, BLOCK_TOKENS):
        digest = hash((digest, *tokens[start : start + BLOCK_TOKENS]))
        digests.append(digest)
    return tuple(digests)


def _common(stored: Series[int], tokens: Series[int], longest: int) -> int:
    limit = min(len(stored), len(tokens), longest)
    return next((place for place in range(limit) if stored[place] != tokens[place]), limit)
