"""What a decision brought, by one metric, and what was expected of each arm.

Invariant: a decision counts for a metric if its value is known, and never by a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from metallm_stream.evaluate.bandit_log import BanditLog, Floats, Mask
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
        What was expected of it for each candidate, `(n, K)`, NaN where nothing was.
    bounds
        Between which the reward lies; None where nothing bounds it. Utilities are at most 1, and
        taken to be at least -1 until one is not.
    is_judged
        Whether only judged decisions count.

    """

    name: str
    reward: Callable[[Logged], float | None]
    predicted: Callable[[Decisions], Floats]
    bounds: tuple[float, float] | None = None
    is_judged: bool = False

    def measure(self, decisions: Decisions) -> Measured:
        """The decisions with their rewards and predictions."""
        reward = numbers([self.reward(row) for row in decisions.rows])
        predicted = _or_0(self.predicted(decisions))
        due = np.array([row.quality is not None or not self.is_judged for row in decisions.rows])
        return Measured(decisions, reward, predicted, due.astype(np.bool_))


@dataclass(frozen=True, eq=False)
class Measured:
    """Decisions with their rewards, `(n,)`, NaN where not known, and predictions, `(n, K)`.

    Those that are `due`, `(n,)`, count unless a part of their reward is unknown.
    """

    decisions: Decisions
    reward: Floats
    predicted: Floats
    due: Mask

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


def predicted_quality(decisions: Decisions) -> Floats:
    """The quality expected of each candidate, `(n, K)`, as no less than 0 and no more than 1.

    Predictions are linear, and early ones go far beyond; doubly robust scores vary with what they
    are wrong by.
    """
    return np.clip(decisions.expected["quality"], 0, 1)


def predicted_utility(decisions: Decisions) -> Floats:
    """The utility expected of each candidate, `(n, K)`, with the weights and scales of the reward.

    The expected quality less the weighted cost and latency, as far as they were known. The logged
    `utility` is not it: that has the price of budgets in it, and the scale of cost of its time. As
    a prediction it would be as right and useless, since doubly robust scores vary with what it is
    wrong by.
    """
    rows, expected = decisions.rows, decisions.expected
    cost = expected["cost_usd"] / numbers([row.cost_scale_usd for row in rows])[:, None]
    latency = expected["latency_s"] / numbers([row.latency_scale_s for row in rows])[:, None]
    cost_weight = numbers([row.cost_weight for row in rows])[:, None]
    latency_weight = numbers([row.latency_weight for row in rows])[:, None]
    worth: Floats = predicted_quality(decisions) - _or_0(cost_weight * cost)
    return worth - _or_0(latency_weight * latency)


def _or_0(values: Floats) -> Floats:
    """With 0 for what is not known."""
    return np.nan_to_num(values, nan=0.0)


def _field(name: str) -> Callable[[Decisions], Floats]:
    """A field of the candidates, as it was logged."""
    return lambda decisions: decisions.expected[name]


METRICS = {
    metric.name: metric
    for metric in (
        Metric("utility", lambda row: row.utility, predicted_utility, (-1.0, 1.0), is_judged=True),
        Metric("quality", lambda row: row.quality, predicted_quality, (0.0, 1.0), is_judged=True),
        Metric("cost", lambda row: row.cost_usd, _field("cost_usd")),
        Metric("latency", lambda row: row.latency_s, _field("latency_s")),
    )
}
