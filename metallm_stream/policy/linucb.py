"""LinUCB with an exploration floor: the arm that could be best, and now and then any.

Invariant: every allowed arm keeps at least `floor / K_allowed`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import best, check_share, floored
from metallm_stream.policy.patience import patiently


@dataclass(frozen=True)
class LinUcb:
    """The allowed arm of the largest `û_a + width·sd_a`.

    Optimism finds good arms fast where labels come at once. Between two refreshes of a policy all
    queries of a kind go to the same arm, so it suits fast feedback and a slow stream. Ties share.

    Parameters
    ----------
    width
        Standard deviations added, at least 0.
    floor
        Share of probability spread evenly over the allowed arms, in [0, 1].

    Examples
    --------
    >>> sure = Beliefs(("a", "b"), np.array([[0.9, 0.8]]), np.array([[0.01, 0.2]]), np.ones(2), 0.2)
    >>> LinUcb().probabilities(sure, np.ones((1, 2), bool))
    array([[0.025, 0.975]])

    References
    ----------
    Li, Chu, Langford & Schapire (2010), A contextual-bandit approach to personalized news article
    recommendation, algorithm 1.

    """

    width: float = 2.0
    floor: float = 0.05
    name: str = "ridge-linucb"

    def __post_init__(self) -> None:
        check_share("floor", self.floor)
        if not self.width >= 0:
            raise ValueError(f"width must not be negative, got {self.width!r}")

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Probabilities, `(n, K)`; see `Chooser.probabilities`."""
        allowed = beliefs.mask(allowed)
        deviation = np.sqrt(beliefs.noise_variance * np.where(allowed, beliefs.uncertainty, 0.0))
        hoped = beliefs.utility + self.width * deviation
        shares = patiently(beliefs, allowed, lambda some: best(hoped, some))
        return floored(shares, allowed, self.floor)
