"""The quantised first pass of the embedded store: one bit a component, in memory, compared by counting bits.

A scan of 300,000 vectors of 512 bits takes some milliseconds of one core and 19 MB, and finds any number of neighbours.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_WORD_BITS = 64


def words_of(dimensions: int) -> int:
    """How many words of 64 bits hold the signs of a vector."""
    return -(-dimensions // _WORD_BITS)


def signs(vectors: NDArray[np.float32]) -> NDArray[np.uint64]:
    """Signs of the components: ``(vectors, dimensions)`` to ``(vectors, words)``."""
    import numpy as np

    packed = np.zeros((len(vectors), words_of(vectors.shape[1]) * 8), np.uint8)
    bits = np.packbits(vectors > 0, axis=1, bitorder="little")
    packed[:, : bits.shape[1]] = bits
    return packed.view(np.uint64)


class BitTable:
    """Signs of a tenant's vectors and the chunks that they belong to.

    Args:
        words: Words of 64 bits a vector.
    """

    def __init__(self, words: int) -> None:
        import numpy as np

        self.revision = -1
        self.documents: dict[int, int] = {}  # row of each document -> revision in which it was written
        self._count = 0
        # Word by word, not vector by vector: whole columns are compared at once, and each passes the cache once.
        self._words = np.zeros((words, 1024), np.uint64)
        self._chunks = np.zeros(1024, np.int64)
        self._owners = np.zeros(1024, np.int64)

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return self._words.nbytes + self._chunks.nbytes + self._owners.nbytes

    def add(self, document: int, revision: int, chunks: NDArray[np.int64], bits: NDArray[np.uint64]) -> None:
        """Take in a document's vectors: the chunk of each, and ``(vectors, words)``."""
        end = self._count + len(chunks)
        if end > len(self._chunks):
            self._grow(end)
        self._words[:, self._count : end] = bits.T
        self._chunks[self._count : end] = chunks
        self._owners[self._count : end] = document
        self._count = end
        self.documents[document] = revision

    def remove(self, documents: Collection[int]) -> None:
        """Forget documents."""
        import numpy as np

        if not documents:
            return
        kept = np.flatnonzero(~np.isin(self._owners[: self._count], list(documents)))
        self._words[:, : len(kept)] = self._words[:, kept]
        self._chunks[: len(kept)] = self._chunks[kept]
        self._owners[: len(kept)] = self._owners[kept]
        self._count = len(kept)
        for document in documents:
            self.documents.pop(document, None)

    def nearest(self, query: NDArray[np.uint64], limit: int, within: Collection[int] | None = None) -> list[int]:
        """Chunks of the vectors whose signs differ least from those of a query ``(words,)``, in no order.

        Args:
            query: Signs of the question's vector.
            limit: How many vectors are taken; chunks are fewer where several are of one.
            within: Chunks that may be found; all of them by default.
        """
        import numpy as np

        words, chunks = self._words[:, : self._count], self._chunks[: self._count]
        if within is not None:
            allowed = np.flatnonzero(np.isin(chunks, list(within)))
            words, chunks = words[:, allowed], chunks[allowed]
        distances = np.zeros(len(chunks), np.uint16)
        for column, word in zip(words, query, strict=True):
            distances += np.bitwise_count(column ^ word)
        if len(distances) > limit:
            chunks = chunks[np.argpartition(distances, limit)[:limit]]
        found: list[int] = np.unique(chunks).tolist()
        return found

    def _grow(self, wanted: int) -> None:
        import numpy as np

        capacity = max(wanted, len(self._chunks) * 2)
        self._words = np.concatenate(
            [self._words, np.zeros((len(self._words), capacity - len(self._chunks)), np.uint64)], axis=1
        )
        more = np.zeros(capacity - len(self._chunks), np.int64)
        self._chunks, self._owners = np.concatenate([self._chunks, more]), np.concatenate([self._owners, more])
