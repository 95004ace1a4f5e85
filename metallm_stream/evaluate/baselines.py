"""What a stream would have given without learning: every fixed arm, chance, and hindsight.

Invariant: baselines are computed from the same outcomes, on the same queries and with the same
scale of cost as the policy they are compared with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from metallm_stream.evaluate.outcomes import Outcomes

WITHIN_BUDGET: Final = "best_fixed_within_budget"


@dataclass(frozen=True)
class Value:
    """Means per query: utility, quality, and cost in USD (None where a cost is not known)."""

    utility: float
    quality: float
    cost_usd: float | None
    arm: str | None = None

    def as_json(self) -> dict[str, object]:
        """The means as plain values; costs are USD a query, null where not known."""
        shown: dict[str, object] = {"utility": self.utility}
        shown |= {"quality": self.quality, "cost": self.cost_usd}
        return shown if self.arm is None else {**shown, "arm": self.arm}


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
        self, probabilities: NDArray[np.float64], rows: NDArray[np.int64], arm: str | None = None
    ) -> Value:
        """Expected means over the queries at `rows`, `(m,)`, under choices `(m, K)` or `(K,)`."""
        cost_usd = self.outcomes.cost_usd[rows]
        paid = np.where(probabilities > 0, probabilities * cost_usd, 0.0)
        cost = float(paid.sum(axis=1).mean())
        return Value(
            utility=float(np.sum(probabilities * self.utility[rows], axis=1).mean()),
            quality=float(np.sum(probabilities * self.outcomes.quality[rows], axis=1).mean()),
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


def baselines(
    stream: Utilities, rows: NDArray[np.int64], budget_usd: float | None = None
) -> dict[str, Value]:
    """Means over the queries at `rows` for each way of choosing that does not learn.

    `best_fixed` is the arm with the highest mean utility on these very queries; `cheapest` and
    `dearest` go by mean cost over the whole file; `uniform` is exact, not drawn; `oracle` takes
    each query's best arm. Under a budget for each query `best_fixed_within_budget` is the best of
    the arms whose mean cost over the whole file is within it; where there is none it is missing.
    Every arm stands as `fixed:<arm>`.
    """
    arms = stream.outcomes.arms
    single = np.eye(len(arms))
    fixed = [stream.value(single[k], rows, arm) for k, arm in enumerate(arms)]
    mean_cost = stream.outcomes.cost_usd.mean(axis=0)
    cheapest = int(np.nanargmin(mean_cost))
    dearest = int(np.nanargmax(mean_cost))
    affordable = []
    if budget_usd is not None:
        affordable = [fixed[k] for k in np.flatnonzero(within_budget(stream.outcomes, budget_usd))]
    return {
        "best_fixed": _best(fixed),
        **({WITHIN_BUDGET: _best(affordable)} if affordable else {}),
        "cheapest": fixed[cheapest],
        "dearest": fixed[dearest],
        "uniform": stream.value(np.full(len(arms), 1 / len(arms)), rows),
        "oracle": stream.value(single[np.argmax(stream.utility[rows], axis=1)], rows),
        **{f"fixed:{value.arm}": value for value in fixed},
    }


def within_budget(outcomes: Outcomes, budget_usd: float) -> NDArray[np.bool_]:
    """The arms `(K,)` whose mean cost over the whole file is within a budget, round-off apart."""
    kept: NDArray[np.bool_] = outcomes.cost_usd.mean(axis=0) <= budget_usd * (1 + 1e-9)
    return kept


def _best(values: Sequence[Value]) -> Value:
    return max(values, key=lambda value: value.utility)
