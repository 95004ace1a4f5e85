"""Inverse propensity scoring: the mean of weighted rewards.

Invariant: unbiased whatever the logging policy did, as long as it gave every arm that the target
may choose a probability above 0, and wrote that probability down.
"""

from __future__ import annotations

from metallm_stream.evaluate.bandit_log import BanditLog
from metallm_stream.evaluate.estimate import Estimate, Moments


class Ips:
    """`V̂ = 1/n Σ w·r`, with the spread of `w·r` as the variance.

    `w·r − V` are martingale differences even while the propensities depend on the past, and the sum
    of their squares estimates the variance of their sum; hence the interval, for large n. The
    weights are noisy, and a reward that is never near 0 makes that noise count: prefer the doubly
    robust ones.

    References
    ----------
    Horvitz & Thompson 1952; Hall & Heyde 1980, "Martingale limit theory", theorem 3.2.

    """

    name = "ips"

    def __init__(self) -> None:
        self._weighted = Moments()

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        self._weighted.add(log.weights * log.reward)

    def estimate(self) -> Estimate:
        """The mean of the weighted rewards."""
        return self._weighted.estimate(self.name)
