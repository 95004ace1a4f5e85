"""What a decision brought, by one metric, and what was expected of each arm.

Invariant: a decision counts for a metric if its value is known, and never by a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metallm_stream.evaluate.bandit_log import BanditLog, Floats
from metallm_stream.evaluate.decisions import Decisions, Logged, numbers


@dataclass(frozen=True, slots=True)
class Metric:
    """A reward and its prediction.

    Attributes
    ----------
    name
        As users say it.
    reward
        Of one decision, None where it is not known.
    predicted
        The candidates' field that predicts it.
    bounds
        Between which the reward lies; None where nothing bounds it. Utilities are at most 1, and
        taken to be at least -1 until one is not.

    """

    name: str
    reward: Callable[[Logged], float | None]
    predicted: str
    bounds: tuple[float, float] | None = None

    def measure(self, decisions: Decisions) -> Measured:
        """The decisions with their rewards and predictions."""
        reward = numbers([self.reward(row) for row in decisions.rows])
        predicted = np.nan_to_num(decisions.expected[self.predicted], nan=0.0)
        return Measured(decisions, reward, predicted)


@dataclass(frozen=True, eq=False)
class Measured:
    """Decisions with their rewards, `(n,)`, NaN where not known, and predictions, `(n, K)`."""

    decisions: Decisions
    reward: Floats
    predicted: Floats

    def log(self, target: Floats) -> BanditLog:
        """Those that count for a target `(n, K)`, as a bandit log."""
        rows = np.isfinite(self.reward) & target.any(axis=1)
        return BanditLog(
            chosen=self.decisions.chosen[rows],
            propensity=self.decisions.propensity[rows],
            reward=self.reward[rows],
            probabilities=self.decisions.probabilities[rows],
            predicted=self.predicted[rows],
            target=target[rows],
        )


METRICS = {
    metric.name: metric
    for metric in (
        Metric("utility", lambda row: row.utility, "utility", (-1.0, 1.0)),
        Metric("quality", lambda row: row.quality, "quality", (0.0, 1.0)),
        Metric("cost", lambda row: row.cost_usd, "cost_usd"),
        Metric("latency", lambda row: row.latency_s, "latency_s"),
    )
}
