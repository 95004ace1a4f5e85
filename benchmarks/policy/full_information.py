"""The reference that learning from one's own choices cannot reach: ridge on every arm's outcome."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STRENGTHS = tuple(float(strength) for strength in 10.0 ** np.arange(-2, 4.5, 0.5))
Floats = NDArray[np.float64]


def predictions(contexts: Floats, targets: Floats, learn: int) -> list[Floats]:
    """Ridges learned from the first queries' targets `(n, K)`: predictions for the others by λ."""
    x, y = contexts[:learn].astype(np.float64), targets[:learn]
    centre, level = x.mean(axis=0), y.mean(axis=0)
    values, vectors = np.linalg.eigh((x - centre).T @ (x - centre))
    projected = vectors.T @ ((x - centre).T @ (y - level))
    rest = (contexts[learn:].astype(np.float64) - centre) @ vectors
    return [
        rest @ (projected / (np.maximum(values, 0.0) + strength)[:, None]) + level
        for strength in STRENGTHS
    ]


def second_half(contexts: Floats, utility: Floats) -> NDArray[np.int64]:
    """Arms chosen on the second half by a ridge that saw all outcomes of the first.

    λ is the one with the highest utility on the second half itself, so that the reference is, if
    anything, too good.
    """
    half = len(utility) // 2
    found = [np.argmax(one, axis=1) for one in predictions(contexts, utility, half)]
    rows = np.arange(half, len(utility))
    return max(found, key=lambda columns: float(utility[rows, columns].mean()))
