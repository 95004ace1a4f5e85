"""One arm's labelled events as features, centred within the arm and diagonalised once.

Invariant: a spectrum is a function of the sums alone, and is finite and positive semi-definite for
any sums, also for none, one or many equal events and after withdrawals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.components import Components
from metallm_stream.policy.usage import NOTHING


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Centred statistics `A = V·diag(e)·Vᵀ` and `b` of one arm's features φ.

    Attributes
    ----------
    observations
        n, the summed weight of the labelled events.
    context_sum, quality_sum
        `Σ w·x`, `(d,)`, and `Σ w·r`.
    eigenvalues, eigenvectors
        e ≥ 0, `(r,)`, and V, `(r, r)`, of `A = Σ w·(φ − φ̄)(φ − φ̄)ᵀ`.
    projected
        `Vᵀb`, `(r,)`, with `b = Σ w·(y − ȳ)(φ − φ̄)` for qualities y.
    spread
        `s = Σ w·(y − ȳ)²`.

    """

    observations: float
    context_sum: NDArray[np.float64]
    quality_sum: float
    eigenvalues: NDArray[np.float64]
    eigenvectors: NDArray[np.float64]
    projected: NDArray[np.float64]
    spread: float


def spectrum(gram: NDArray[np.float64], axes: Components) -> Spectrum:
    """Centre, project and diagonalise one arm's sums `G`, `(d + 2, d + 2)`.

    >>> axes = Components(centre=np.array([1.0]), projection=np.array([[1.0]]))
    >>> gram = np.array([[2.0, 2.0, 1.0], [2.0, 4.0, 2.0], [1.0, 2.0, 1.0]])
    >>> found = spectrum(gram, axes)
    >>> found.eigenvalues, found.spread  # contexts 0 and 2, qualities 0 and 1
    (array([2.]), 0.5)
    """
    n = float(gram[0, 0])
    d, rank = axes.projection.shape
    if n < NOTHING:
        return Spectrum(0.0, np.zeros(d), 0.0, np.zeros(rank), np.eye(rank), np.zeros(rank), 0.0)
    total = gram[0, 1:]
    centred = gram[1:, 1:] - np.outer(total, total / n)
    eigenvalues, eigenvectors = np.linalg.eigh(
        axes.projection.T @ centred[:d, :d] @ axes.projection
    )
    # Round-off of the subtraction is all that is left in directions without spread.
    scale = float(np.sum(axes.projection**2))
    kept = eigenvalues > np.finfo(float).eps * max(1.0, n) * (d + 2) * max(1.0, scale)
    b = axes.projection.T @ centred[:d, d]
    return Spectrum(
        observations=n,
        context_sum=total[:d],
        quality_sum=float(total[d]),
        eigenvalues=np.where(kept, eigenvalues, 0.0),
        eigenvectors=eigenvectors,
        projected=np.where(kept, eigenvectors.T @ b, 0.0),
        spread=max(0.0, float(centred[d, d])),
    )
