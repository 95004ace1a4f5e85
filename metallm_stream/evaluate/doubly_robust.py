"""Doubly robust estimation: the model's word, corrected by what came of the choices.

Invariant: the predictions were logged before the outcomes, so the estimate is unbiased however bad
they are and however the logging policy learned from earlier outcomes; good ones only narrow it.
"""

from __future__ import annotations

from metallm_stream.evaluate.bandit_log import BanditLog
from metallm_stream.evaluate.estimate import Estimate, Moments


class DoublyRobust:
    """The mean of the scores `w·(r − q̂(chosen)) + Σ_k π(k)·q̂(k)`.

    The variance is the scores' spread. Where no arm's propensity goes to 0 and the logging policy
    settles, the interval is right for large n; where it does neither, see `WeightedDoublyRobust`
    and `AnytimeDoublyRobust`.

    References
    ----------
    Dudík, Langford & Li 2011, eq. 1; Hadad et al. 2021, "Confidence intervals for policy evaluation
    in adaptive experiments", eq. 5 with equal weights.

    """

    name = "dr"

    def __init__(self) -> None:
        self._scores = Moments()

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        self._scores.add(log.scores)

    def estimate(self) -> Estimate:
        """The mean of the scores."""
        return self._scores.estimate(self.name)
