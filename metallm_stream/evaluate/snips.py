"""Self-normalised inverse propensity scoring: the weighted mean of rewards.

Invariant: adding a constant to all rewards adds it to the estimate, and the estimate lies between
the smallest and the largest reward; the price is a bias that vanishes with the effective sample.
"""

from __future__ import annotations

import math

from metallm_stream.evaluate.bandit_log import BanditLog
from metallm_stream.evaluate.estimate import Estimate


class Snips:
    """`V̂ = Σ w·r / Σ w`, with the variance `Σ w²·(r − V̂)² / (Σ w)²`.

    The variance is that of a ratio to the first order (delta method): `w·(r − V)` are martingale
    differences while the logging policy learns, as for `Ips`.

    References
    ----------
    Swaminathan & Joachims 2015, "The self-normalized estimator for counterfactual learning", eq. 5
    and 7; Owen 2013, "Monte Carlo theory, methods and examples", eq. 9.9.

    """

    name = "snips"

    def __init__(self) -> None:
        self._n = 0
        self._w = self._wr = 0.0
        self._ww = self._wwr = self._wwrr = 0.0

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        w, wr = log.weights, log.weights * log.reward
        self._n += len(log)
        self._w += float(w.sum())
        self._wr += float(wr.sum())
        self._ww += float(w @ w)
        self._wwr += float(w @ wr)
        self._wwrr += float(wr @ wr)

    def estimate(self) -> Estimate:
        """The weighted mean of the rewards."""
        if self._n == 0:
            return Estimate(self.name, note="no decisions")
        if self._w == 0:
            return Estimate(self.name, note="no decision that the target would have made")
        value = self._wr / self._w
        if self._n == 1:
            return Estimate(self.name, value, note="one decision has no spread")
        spread = self._wwrr - 2 * value * self._wwr + value**2 * self._ww
        return Estimate.normal(self.name, value, math.sqrt(max(spread, 0.0)) / self._w)
