"""What all vectors of a tenant have in common, taken away: it says nothing of any one of them.

Everything in a manual of Debian is about Debian, and its vectors all point that way; what is left tells passages apart.

Source: Mu and Viswanath, "All-but-the-Top: Simple and Effective Postprocessing for Word Representations", 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

DIRECTIONS = 2
#: With fewer vectors, what they have in common may be what they are about.
MIN_VECTORS = 200
SAMPLE_VECTORS = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Common:
    """What vectors have in common.

    Args:
        mean: ``(dimensions,) float32``.
        directions: ``(DIRECTIONS, dimensions) float32``, orthonormal: in which they differ most.
    """

    mean: NDArray[np.float32]
    directions: NDArray[np.float32]

    def without(self, vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """Vectors ``(n, dimensions)`` without it, of unit length again."""
        import numpy as np

        rest = vectors - self.mean
        rest -= (rest @ self.directions.T) @ self.directions
        unit: NDArray[np.float32] = rest / np.maximum(np.linalg.norm(rest, axis=1, keepdims=True), 1e-6)
        return unit


def common_of(sample: NDArray[np.float32]) -> Common | None:
    """What a sample of vectors has in common; None where there are too few to tell."""
    import numpy as np

    if len(sample) < MIN_VECTORS:
        return None
    mean = sample.mean(0)
    centred = sample - mean
    # Eigenvectors of the small square matrix: much cheaper than singular vectors of the tall one.
    _, directions = np.linalg.eigh(centred.T @ centred)
    return Common(mean, np.ascontiguousarray(directions[:, -DIRECTIONS:].T))
