"""From utilities to probabilities: what every rule of choice promises, and how one is drawn from.

Invariant: probabilities are those with which arms are really drawn, so that the logged
propensities can be trusted by any later estimate.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class Chooser(Protocol):
    """A rule of choice: pure, and the same for one query as for a batch."""

    @property
    def name(self) -> str:
        """The name under which the registry knows it."""
        ...

    def probabilities(
        self,
        utilities: NDArray[np.float64],
        allowed: NDArray[np.bool_],
        observations: NDArray[np.float64],
        arms: Sequence[str],
    ) -> NDArray[np.float64]:
        """Probability of each arm for each query, `(n, K)`; rows sum to 1 over the allowed arms.

        Parameters
        ----------
        utilities
            Expected utility, `(n, K)`, finite where allowed.
        allowed
            Which arms each query may use, `(n, K)`; at least one a row.
        observations
            Labelled events of each arm, `(K,)`.
        arms
            Names of the K arms.

        """
        ...


def sample(probabilities: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw one arm a row, `(n,)`, from probabilities `(n, K)`; one uniform number a row.

    >>> sample(np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]), np.random.default_rng(7))
    array([1, 0])
    """
    cumulated = np.cumsum(probabilities, axis=1)
    drawn = rng.random(len(cumulated)) * cumulated[:, -1]
    chosen: NDArray[np.int64] = np.argmax(cumulated > drawn[:, None], axis=1)
    return chosen


def check(
    utilities: NDArray[np.float64],
    allowed: NDArray[np.bool_],
    observations: NDArray[np.float64],
    arms: Sequence[str],
) -> None:
    """Raise `ValueError` where shapes differ, a row allows no arm or a utility is not finite."""
    k = len(arms)
    if utilities.ndim != 2 or utilities.shape[1] != k or allowed.shape != utilities.shape:
        raise ValueError(
            f"expected utilities and allowed of shape (n, {k}), "
            f"got {utilities.shape} and {allowed.shape}"
        )
    if observations.shape != (k,):
        raise ValueError(f"expected observations of shape ({k},), got {observations.shape}")
    if not allowed.any(axis=1).all():
        raise ValueError(f"query {int(np.argmin(allowed.any(axis=1)))} of the batch allows no arm")
    if not np.isfinite(utilities[allowed]).all():
        raise ValueError("utilities of allowed arms must be finite")
