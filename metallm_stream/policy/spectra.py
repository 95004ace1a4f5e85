"""One arm's labelled events, centred within the arm and diagonalised once for every prior strength.

Invariant: a spectrum is a function of the arm's sums alone, and is finite and positive
semi-definite for any sums, also for none, one or many equal events and after withdrawals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Less than this many labelled events is what round-off leaves of events taken out again.
_NOTHING = 1e-6


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Centred statistics `A = V·diag(e)·Vᵀ` and `b` of one arm.

    Attributes
    ----------
    gram
        The sums this was computed from, `(d + 2, d + 2)`.
    observations
        n, the summed weight of the labelled events.
    context_sum, quality_sum
        `Σ w·x`, `(d,)`, and `Σ w·r`.
    eigenvalues, eigenvectors
        e ≥ 0, `(d,)`, and V, `(d, d)`, of `A = Σ w·(x − x̄)(x − x̄)ᵀ`.
    projected
        `Vᵀb`, `(d,)`, with `b = Σ w·(r − r̄)(x − x̄)`.
    spread
        `s = Σ w·(r − r̄)²`.

    """

    gram: NDArray[np.float64]
    observations: float
    context_sum: NDArray[np.float64]
    quality_sum: float
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]
    projected: NDArray[np.float64]
    spread: float


def spectrum(gram: NDArray[np.float64]) -> Spectrum:
    """Centre and diagonalise one arm's sums `G`, `(d + 2, d + 2)`.

    >>> found = spectrum(np.array([[2.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]]))
    >>> found.eigenvalues, found.spread  # contexts 0 and 2, qualities 0 and 1
    (array([2.]), 0.5)
    """
    n = float(gram[0, 0])
    d = len(gram) - 2
    if n < _NOTHING:
        zeros = np.zeros(d)
        return Spectrum(gram, 0.0, zeros, 0.0, zeros, np.eye(d), zeros, 0.0)
    total = gram[0, 1:]
    centred = gram[1:, 1:] - np.outer(total, total / n)
    eigenvalues, eigenvectors = np.linalg.eigh(centred[:d, :d])
    # Round-off of the subtraction is all that is left in directions without spread.
    noise = np.finfo(float).eps * max(1.0, n) * (d + 2)
    kept = eigenvalues > noise
    return Spectrum(
        gram=gram,
        observations=n,
        context_sum=total[:d],
        quality_sum=float(total[d]),
        eigenvalues=np.where(kept, eigenvalues, 0.0),
        eigenvectors=eigenvectors,
        projected=np.where(kept, eigenvectors.T @ centred[:d, d], 0.0),
        spread=max(0.0, float(centred[d, d])),
    )
