"""Every allowed arm with the same probability: a baseline, and the way to log unbiased data.

Invariant: neither utilities nor observations matter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.chooser import check


class Uniform:
    """Choose evenly among the allowed arms; learns nothing and wastes nothing on estimates.

    >>> Uniform().probabilities(np.zeros((1, 2)), np.ones((1, 2), bool), np.zeros(2), ["a", "b"])
    array([[0.5, 0.5]])
    """

    name = "uniform"

    def probabilities(
        self,
        utilities: NDArray[np.float64],
        allowed: NDArray[np.bool_],
        observations: NDArray[np.float64],
        arms: Sequence[str],
    ) -> NDArray[np.float64]:
        """`1 / K_allowed` for each allowed arm, `(n, K)`; see `Chooser.probabilities`."""
        check(utilities, allowed, observations, arms)
        even: NDArray[np.float64] = allowed / allowed.sum(axis=1, keepdims=True)
        return even
