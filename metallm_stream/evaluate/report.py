"""What a replay was worth, beside what the same queries were worth to the baselines.

Invariant: policy and baselines are measured on the same queries, with the same scale of cost.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.evaluate.baselines import Utilities, Value, baselines
from metallm_stream.evaluate.replay import Choices


@dataclass(frozen=True)
class Part:
    """One part of a stream.

    Attributes
    ----------
    policy
        Means per query of what the policy chose.
    baselines
        The same by name of the baseline.
    shares
        Share of the queries by arm.
    standard_error
        Of the policy's mean utility over shuffles; None for a single one.

    """

    policy: Value
    baselines: Mapping[str, Value]
    shares: Mapping[str, float]
    standard_error: float | None = None

    def as_json(self) -> dict[str, object]:
        """The part as plain values; costs are USD a query, null where not known."""
        shown: dict[str, object] = {
            **self.policy.as_json(),
            "baselines": {name: value.as_json() for name, value in self.baselines.items()},
            "shares": dict(self.shares),
        }
        if self.standard_error is not None:
            shown["utility_standard_error"] = self.standard_error
        return shown


def parts(
    stream: Utilities,
    order: NDArray[np.int64],
    choices: Choices,
    budget_usd: float | None = None,
) -> tuple[Part, Part]:
    """The whole replay and its second half; `order` as it was given to `replay`."""
    half = len(order) // 2
    return (
        _part(stream, order, choices.columns, budget_usd),
        _part(stream, order[half:], choices.columns[half:], budget_usd),
    )


def mean_part(over: Sequence[Part]) -> Part:
    """The mean of one part over several replays, with the standard error of the utility."""
    utility = np.array([part.policy.utility for part in over])
    error = float(utility.std(ddof=1)) / math.sqrt(len(over)) if len(over) > 1 else None
    return Part(
        policy=_mean([part.policy for part in over]),
        baselines={
            name: _mean([part.baselines[name] for part in over]) for name in over[0].baselines
        },
        shares={arm: float(np.mean([part.shares[arm] for part in over])) for arm in over[0].shares},
        standard_error=error,
    )


def _part(
    stream: Utilities,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    budget_usd: float | None,
) -> Part:
    arms = stream.outcomes.arms
    chosen = np.eye(len(arms))[columns]
    shares = chosen.mean(axis=0)
    return Part(
        policy=stream.value(chosen, rows),
        baselines=baselines(stream, rows, budget_usd),
        shares={arm: float(share) for arm, share in zip(arms, shares, strict=True)},
    )


def _mean(values: Sequence[Value]) -> Value:
    """Means of means; the arm is named where it was the same throughout."""
    costs = [value.cost_usd for value in values if value.cost_usd is not None]
    arms = {value.arm for value in values}
    return Value(
        utility=float(np.mean([value.utility for value in values])),
        quality=float(np.mean([value.quality for value in values])),
        cost_usd=float(np.mean(costs)) if len(costs) == len(values) else None,
        arm=arms.pop() if len(arms) == 1 else None,
    )
