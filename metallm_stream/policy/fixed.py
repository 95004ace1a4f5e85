"""Always the same arm: the baseline that every learned policy has to beat.

Invariant: another arm is chosen only where a query does not allow the fixed one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs


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
    >>> Fixed("b").probabilities(Beliefs.nothing(("a", "b"), 1), np.ones((1, 2), bool))
    array([[0., 1.]])

    """

    def __init__(self, arm: str) -> None:
        self.arm = arm
        self.name = f"fixed:{arm}"

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """1 for the chosen arm, `(n, K)`; see `Chooser.probabilities`."""
        allowed = beliefs.mask(allowed)
        preferred = np.where(allowed, beliefs.utility, -np.inf)
        if self.arm in beliefs.arms:
            column = beliefs.arms.index(self.arm)
            preferred[allowed[:, column], column] = np.inf
        chosen: NDArray[np.float64] = np.eye(len(beliefs.arms))[np.argmax(preferred, axis=1)]
        return chosen
