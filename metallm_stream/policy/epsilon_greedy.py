"""ε-greedy: the best arm as far as known, and any arm with a probability that fades.

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
class EpsilonGreedy:
    """The allowed arm of the largest expected utility, or with probability ε an even draw.

    The simplest rule there is, and easy to explain; it tries bad arms as often as good ones.
    `ε = max(floor, min(1, scale·K/√(1 + t)))` with t labelled events of K arms.

    Parameters
    ----------
    scale
        How much is explored, at least 0.
    floor
        Least ε, in [0, 1].

    Examples
    --------
    >>> known = Beliefs(("a", "b"), np.array([[0.9, 0.8]]), np.ones((1, 2)), np.full(2, 72.0), 0.2)
    >>> EpsilonGreedy().probabilities(known, np.ones((1, 2), bool)).round(3)
    array([[0.958, 0.042]])

    References
    ----------
    Auer, Cesa-Bianchi & Fischer (2002), Finite-time analysis of the multiarmed bandit problem,
    figure 3, for an ε that fades.

    """

    scale: float = 0.5
    floor: float = 0.01
    name: str = "ridge-epsilon"

    def __post_init__(self) -> None:
        check_share("floor", self.floor)
        if not self.scale >= 0:
            raise ValueError(f"scale must not be negative, got {self.scale!r}")

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Probabilities, `(n, K)`; see `Chooser.probabilities`."""
        allowed = beliefs.mask(allowed)
        events = float(beliefs.observations.sum())
        fading = self.scale * len(beliefs.arms) / np.sqrt(1.0 + events)
        epsilon = max(self.floor, min(1.0, fading))
        shares = patiently(beliefs, allowed, lambda some: best(beliefs.utility, some))
        return floored(shares, allowed, epsilon)
