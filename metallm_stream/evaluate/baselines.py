"""What a stream would have given without learning: every fixed arm, chance, and hindsight.

Invariant: baselines are computed from the same outcomes, on the same queries and with the same
scale of cost as the policy they are compared with.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.evaluate.outcomes import Outcomes


@dataclass(frozen=True)
class Value:
    """Means per query: utility, quality, and cost in USD (None where a cost is not known)."""

    utility: float
    quality: float
    cost_usd: float | None
    arm: str | None = None


@dataclass(frozen=True, eq=False)
class Utilities:
    """Outcomes under one cost weight: `quality − cost_weight · cost / dearest arm's mean cost`.

    Attributes
    ----------
    outcomes
        The arms that can be compared under the weight.
    cost_weight
        What the dearest arm's mean cost is worth, in quality.
    cost_scale_usd
        The dearest arm's mean cost over the whole stream; 1 where all costs are 0.
    utility
        `(n, K)`.

    """

    outcomes: Outcomes
    cost_weight: float
    cost_scale_usd: float
    utility: NDArray[np.float64]

    def value(
        self, probabilities: NDArray[np.float64], part: slice, arm: str | None = None
    ) -> Value:
        """Expected means of a part of the stream under choices `(n, K)` or `(K,)`."""
        weights = np.broadcast_to(probabilities, self.utility.shape)[part]
        used = np.where(weights > 0, self.outcomes.cost_usd[part], 0.0)
        cost = float(np.mean(np.sum(weights * used, axis=1)))
        return Value(
            utility=float(np.mean(np.sum(weights * self.utility[part], axis=1))),
            quality=float(np.mean(np.sum(weights * self.outcomes.quality[part], axis=1))),
            cost_usd=None if np.isnan(cost) else cost,
            arm=arm,
        )


def utilities(outcomes: Outcomes, cost_weight: float) -> Utilities:
    """Weigh quality and cost; arms that cannot be compared are left out (`Outcomes.priced`)."""
    compared = outcomes.priced(cost_weight)
    mean_cost = compared.cost_usd.mean(axis=0)
    scale = float(np.nanmax(mean_cost)) or 1.0
    penalty = cost_weight * compared.cost_usd / scale if cost_weight else 0.0
    return Utilities(compared, cost_weight, scale, compared.quality - penalty)


def baselines(stream: Utilities, part: slice) -> dict[str, Value]:
    """Means of a part of the stream for each way of choosing that does not learn.

    `best_fixed` is the arm with the highest mean utility on this very part; `cheapest` and
    `dearest` go by mean cost over the whole stream; `uniform` is exact, not drawn; `oracle`
    takes each query's best arm. Arms stand as `fixed:<arm>`.
    """
    arms = stream.outcomes.arms
    single = np.eye(len(arms))
    fixed = {arm: stream.value(single[k], part, arm) for k, arm in enumerate(arms)}
    mean_cost = stream.outcomes.cost_usd.mean(axis=0)
    by_cost = np.where(np.isnan(mean_cost), np.inf, mean_cost)
    return {
        "best_fixed": max(fixed.values(), key=lambda value: value.utility),
        "cheapest": fixed[arms[int(np.argmin(by_cost))]],
        "dearest": fixed[arms[int(np.nanargmax(mean_cost))]],
        "uniform": stream.value(np.full(len(arms), 1 / len(arms)), part),
        "oracle": stream.value(single[np.argmax(stream.utility, axis=1)], part),
        **{f"fixed:{arm}": value for arm, value in fixed.items()},
    }
