"""Stored decisions with what came of them, as arrays.

Invariant: what is not known stays unknown until a metric says what it does with it; a decision
whose probabilities cannot have been is refused by its query's name.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metallm_stream.errors import InvalidEvent
from metallm_stream.evaluate.bandit_log import TOLERANCE, Floats

Seen = Mapping[str, str | float | None]


@dataclass(frozen=True, slots=True)
class Logged:
    """One decision that has a result.

    Attributes
    ----------
    query_id, arm, propensity
        What was decided.
    candidates
        What was known of each allowed arm: `arm`, `probability`, and where known `quality`,
        `cost_usd`, `latency_s`, `utility`.
    quality, cost_usd, latency_s
        What came of it, None where it is not known. They belong to the decision, fallbacks and
        failures included: whoever chooses this arm gets what follows from it.
    cost_weight, latency_weight, cost_scale_usd, latency_scale_s
        The query's trade-off.

    """

    query_id: str
    arm: str
    propensity: float
    candidates: Sequence[Seen]
    quality: float | None
    cost_usd: float | None
    latency_s: float | None
    cost_weight: float
    latency_weight: float
    cost_scale_usd: float
    latency_scale_s: float

    @property
    def utility(self) -> float | None:
        """`quality − cost_weight·cost/cost_scale − latency_weight·latency/latency_scale`.

        None where a part is unknown that counts.
        """
        value = self.quality
        for weight, amount, scale in (
            (self.cost_weight, self.cost_usd, self.cost_scale_usd),
            (self.latency_weight, self.latency_s, self.latency_scale_s),
        ):
            if value is None or (weight and amount is None):
                return None
            value -= weight * (amount or 0.0) / scale
        return value


@dataclass(frozen=True, eq=False)
class Decisions:
    """n logged decisions among K arms, in the order in which they were made.

    Attributes
    ----------
    rows
        The decisions.
    arms
        Names of the columns: every arm that was allowed in one of the rows.
    chosen, propensity
        `(n,)`.
    allowed, probabilities
        `(n, K)`; the probability is 0 where an arm was not allowed.

    """

    rows: tuple[Logged, ...]
    arms: tuple[str, ...]
    chosen: NDArray[np.int64]
    propensity: Floats
    allowed: NDArray[np.bool_]
    probabilities: Floats

    @classmethod
    def of(cls, rows: Sequence[Logged]) -> Self:
        """As arrays. `InvalidEvent` names the query whose decision cannot have been made."""
        arms = tuple(dict.fromkeys(str(seen["arm"]) for row in rows for seen in row.candidates))
        column = {arm: k for k, arm in enumerate(arms)}
        allowed = np.zeros((len(rows), len(arms)), dtype=np.bool_)
        probabilities = np.zeros((len(rows), len(arms)))
        for n, row in enumerate(rows):
            for seen in row.candidates:
                k = column[str(seen["arm"])]
                allowed[n, k] = True
                probabilities[n, k] = number(seen["probability"])
            _check(row, probabilities[n], column)
        chosen = np.array([column[row.arm] for row in rows], dtype=np.int64)
        propensity = np.array([row.propensity for row in rows], dtype=np.float64)
        return cls(tuple(rows), arms, chosen, propensity, allowed, probabilities)

    def expected(self, field: str) -> Floats:
        """A candidates' field, `(n, K)`, NaN where it is not known."""
        column = {arm: k for k, arm in enumerate(self.arms)}
        values = np.full(self.allowed.shape, np.nan)
        for n, row in enumerate(self.rows):
            for seen in row.candidates:
                values[n, column[str(seen["arm"])]] = number(seen.get(field))
        return values


def number(value: str | float | None) -> float:
    """NaN for what is not known.

    >>> number(None)
    nan
    """
    return math.nan if value is None else float(value)


def _check(row: Logged, probabilities: Floats, column: Mapping[str, int]) -> None:
    if not 0 < row.propensity <= 1:
        raise InvalidEvent(f"query_id {row.query_id!r}: propensity {row.propensity} not in (0, 1]")
    if row.arm not in {seen["arm"] for seen in row.candidates}:
        raise InvalidEvent(f"query_id {row.query_id!r}: arm {row.arm!r} is not a candidate")
    logged, total = probabilities[column[row.arm]], probabilities.sum()
    if abs(logged - row.propensity) > TOLERANCE or not abs(total - 1) <= TOLERANCE:
        raise InvalidEvent(
            f"query_id {row.query_id!r}: propensity {row.propensity}, but arm {row.arm!r} has "
            f"probability {logged} of {total} in all; it was not decided by this service"
        )
