"""What every encoder promises: texts in, contexts out.

Invariant: a context is finite and of unit norm, or all zeros for a text in which the encoder
knows nothing; the same text gives the same context, alone or in a batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Encoder(Protocol):
    """Turns texts into contexts; its name is part of the identity of a policy learned on them."""

    @property
    def name(self) -> str:
        """Identity: two encoders of one name give the same contexts."""

    @property
    def dimensions(self) -> int:
        """Length d of a context."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Contexts of texts, `(n, d)`, float32, rows of unit norm or zero."""


def unit_rows(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Rows scaled to unit norm, float32; rows of zeros stay zeros.

    >>> unit_rows(np.array([[3.0, 4.0], [0.0, 0.0]]))
    array([[0.6, 0.8],
           [0. , 0. ]], dtype=float32)
    """
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(norms > 0.0, norms, 1.0)).astype(np.float32)
