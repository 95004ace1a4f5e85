"""Stored decisions with what came of them, as arrays.

Invariant: what is not known stays unknown until a metric says what it does with it; a decision
whose probabilities cannot have been is refused by its query's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metallm_stream.errors import InvalidEvent
from metallm_stream.evaluate.bandit_log import TOLERANCE, Floats, Mask

Seen = Mapping[str, str | float | None]
EXPECTED = ("quality", "cost_usd", "latency_s", "utility")
# Nothing is drawn more rarely: weights can be squared and summed, whatever was logged.
RAREST = 1e-9


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
    cost_weight, latency_weight
        The query's trade-off, without what budgets added to it while they bound.
    cost_scale_usd, latency_scale_s
        What counts as 1 in it. Give all decisions the same `cost_scale_usd`, the median of their
        own for example: the first ones knew little of the arms' costs, or nothing.

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
        `(n, K)`; the probability is 0 where an arm was not allowed. Those above 0 are at least
        `RAREST`, as propensities are.
    expected
        By the candidates' field (`quality`, `cost_usd`, `latency_s`, `utility`), `(n, K)`, NaN
        where it is not known.

    """

    rows: tuple[Logged, ...]
    arms: tuple[str, ...]
    chosen: NDArray[np.int64]
    propensity: Floats
    allowed: Mask
    probabilities: Floats
    expected: Mapping[str, Floats]

    @classmethod
    def of(cls, rows: Sequence[Logged]) -> Self:
        """As arrays. `InvalidEvent` names the query whose decision cannot have been made."""
        seen = [one for row in rows for one in row.candidates]
        arms = tuple(dict.fromkeys(str(one["arm"]) for one in seen))
        column = {arm: k for k, arm in enumerate(arms)}
        row_of = np.repeat(np.arange(len(rows)), [len(row.candidates) for row in rows])
        places = (row_of, np.array([column[str(one["arm"])] for one in seen], dtype=np.int64))
        shape = (len(rows), len(arms))
        allowed = np.zeros(shape, dtype=np.bool_)
        allowed[places] = True
        found = cls(
            rows=tuple(rows),
            arms=arms,
            chosen=np.array([column.get(row.arm, -1) for row in rows], dtype=np.int64),
            propensity=numbers([row.propensity for row in rows]),
            allowed=allowed,
            probabilities=_spread(shape, places, seen, "probability", 0.0),
            expected={name: _spread(shape, places, seen, name, np.nan) for name in EXPECTED},
        )
        found._check()
        return replace(
            found,
            propensity=np.maximum(found.propensity, RAREST),
            probabilities=np.where(
                found.probabilities > 0, np.maximum(found.probabilities, RAREST), 0.0
            ),
        )

    def _check(self) -> None:
        """Raise for the first row that cannot be."""
        every = np.arange(len(self.rows))
        logged = self.probabilities[every, self.chosen] if self.arms else np.zeros(len(every))
        total = self.probabilities.sum(axis=1)
        possible = (self.propensity > 0) & (self.propensity <= 1)
        known = (self.chosen >= 0) & self.allowed[every, self.chosen] if self.arms else every < 0
        agrees = np.abs(logged - self.propensity) <= TOLERANCE
        good = possible & known & agrees & (np.abs(total - 1) <= TOLERANCE)
        if good.all():
            return
        n = int(np.argmin(good))
        row = self.rows[n]
        if not possible[n]:
            said = f"propensity {row.propensity} not in (0, 1]"
        elif not known[n]:
            said = f"arm {row.arm!r} is not a candidate"
        else:
            said = (
                f"propensity {row.propensity}, but arm {row.arm!r} has probability {logged[n]} of "
                f"{total[n]} in all; it was not decided by this service"
            )
        raise InvalidEvent(f"query_id {row.query_id!r}: {said}")


def numbers(values: Sequence[str | float | None]) -> Floats:
    """As an array, NaN for what is not known.

    >>> numbers([1, None])
    array([ 1., nan])
    """
    return np.array(values, dtype=np.float64)


def _spread(
    shape: tuple[int, int],
    places: tuple[NDArray[np.int64], NDArray[np.int64]],
    seen: Sequence[Seen],
    field: str,
    empty: float,
) -> Floats:
    """A field of all candidates at their places, `empty` elsewhere."""
    values = np.full(shape, empty)
    values[places] = numbers([one.get(field) for one in seen])
    return values
