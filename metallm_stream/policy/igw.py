"""Inverse-gap weighting: the further an arm is behind, the less often it is tried.

Invariant: every allowed arm keeps at least `floor / K_allowed`, so nothing is ever locked out and
any other policy can be evaluated from the log.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import floored
from metallm_stream.policy.patience import patiently


@dataclass(frozen=True)
class InverseGap:
    """Try arm a with `p_a = 1 / (K + γ·(û_best − û_a))`, and the best arm with the rest.

    Needs only point estimates, and its propensities are exact. γ grows with the square root of
    the number of labelled events, so exploration fades as estimates sharpen. An arm with fewer
    than `first_pulls` labelled events has no estimate worth a gap: it keeps its even share
    `1 / K`, and the others divide what remains. While no arm is tried, that is uniform; a new arm
    beside tried ones takes its even share and no more, and ever less if its labels never come.

    Parameters
    ----------
    gamma
        γ after one labelled event; larger means greedier.
    first_pulls
        Labelled events after which an arm's estimate counts.
    floor
        Share of probability spread evenly over the allowed arms, in [0, 1].

    Examples
    --------
    >>> chooser = InverseGap(gamma=10, floor=0.0)
    >>> utility, both = np.array([[0.9, 0.8]]), np.ones((1, 2), bool)
    >>> known = Beliefs(("a", "b"), utility, np.ones((1, 2)), np.array([50.0, 50.0]), 0.2)
    >>> chooser.probabilities(known, both).round(3)
    array([[0.917, 0.083]])
    >>> new = Beliefs(("a", "b"), utility, np.ones((1, 2)), np.array([50.0, 1.0]), 0.2)
    >>> chooser.probabilities(new, both)
    array([[0.5, 0.5]])

    References
    ----------
    Foster & Rakhlin (2020), Beyond UCB: optimal and efficient contextual bandits with regression
    oracles, algorithm 1. Abe & Long (1999), Associative reinforcement learning using linear
    probabilistic concepts.

    """

    gamma: float = 300.0
    first_pulls: float = 5.0
    floor: float = 0.01
    name: str = "ridge-igw"

    def __post_init__(self) -> None:
        if not (self.gamma >= 0 and self.first_pulls >= 0 and 0 <= self.floor <= 1):
            raise ValueError(f"gamma and first_pulls must be ≥ 0 and floor in [0, 1], got {self}")

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Inverse-gap probabilities, `(n, K)`; see `Chooser.probabilities`.

        t in `γ·√t` counts the labelled events of the arms that the query allows.
        """
        allowed = beliefs.mask(allowed)
        shares = patiently(beliefs, allowed, lambda some: self._shares(beliefs, some))
        return floored(shares, allowed, self.floor)

    def _shares(self, beliefs: Beliefs, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
        tried = allowed & (beliefs.observations >= self.first_pulls)
        tried_total = tried.sum(axis=1, keepdims=True)
        weighted = self._inverse_gap(beliefs.utility, tried, tried @ beliefs.observations)
        shares: NDArray[np.float64] = np.where(tried, weighted * tried_total, allowed)
        shares /= allowed.sum(axis=1, keepdims=True)
        return shares

    def _inverse_gap(
        self,
        utilities: NDArray[np.float64],
        tried: NDArray[np.bool_],
        events: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """Rows that sum to 1 over the tried arms, and are 0 elsewhere."""
        masked = np.where(tried, utilities, -np.inf)
        best = np.argmax(masked, axis=1)
        rows = np.arange(len(best))
        gap = np.where(tried, utilities[rows, best][:, None] - utilities, 0.0)
        gamma = self.gamma * np.sqrt(np.maximum(events, 0.0))
        arms = np.maximum(tried.sum(axis=1, keepdims=True), 1)
        shares: NDArray[np.float64] = tried / (arms + gamma[:, None] * gap)
        shares[rows, best] = 0.0
        shares[rows, best] = tried[rows, best] * (1.0 - shares.sum(axis=1))
        return shares
