"""Every allowed arm with the same probability: a baseline, and the way to log unbiased data.

Invariant: neither utilities nor observations matter.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import even


class Uniform:
    """Choose evenly among the allowed arms; learns nothing and wastes nothing on estimates.

    >>> Uniform().probabilities(Beliefs.nothing(("a", "b"), 1), np.ones((1, 2), bool))
    array([[0.5, 0.5]])
    """

    name = "uniform"

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """`1 / K_allowed` for each allowed arm, `(n, K)`; see `Chooser.probabilities`."""
        allowed = beliefs.mask(allowed)
        return even(allowed)
