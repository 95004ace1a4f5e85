"""Always the same arm: the baseline that every learned policy has to beat.

Invariant: another arm is chosen only where a query does not allow the fixed one.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.chooser import check


class Fixed:
    """Choose one named arm; where it cannot be had, the allowed arm of highest utility.

    It cannot be had where a query excludes it or the catalogue no longer has it: removing a model
    must not stop the stream.

    Predictable, but blind: it explores nothing, so nothing can be learned from its log about
    the other arms.

    Parameters
    ----------
    arm
        Name of the arm.

    Examples
    --------
    >>> Fixed("b").probabilities(np.zeros((1, 2)), np.ones((1, 2), bool), np.zeros(2), ["a", "b"])
    array([[0., 1.]])

    """

    def __init__(self, arm: str) -> None:
        self.arm = arm
        self.name = f"fixed:{arm}"

    def probabilities(
        self,
        utilities: NDArray[np.float64],
        allowed: NDArray[np.bool_],
        observations: NDArray[np.float64],
        arms: Sequence[str],
    ) -> NDArray[np.float64]:
        """1 for the chosen arm, `(n, K)`; see `Chooser.probabilities`."""
        check(utilities, allowed, observations, arms)
        preferred = np.where(allowed, utilities, -np.inf)
        if self.arm in arms:
            column = list(arms).index(self.arm)
            preferred[allowed[:, column], column] = np.inf
        chosen: NDArray[np.float64] = np.eye(len(arms))[np.argmax(preferred, axis=1)]
        return chosen
