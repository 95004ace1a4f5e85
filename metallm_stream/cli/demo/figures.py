"""What the stream was worth: the service beside every way of choosing that does not learn.

Invariant: service and baselines are measured on the same queries in the same order, with the same
scale of cost; what the service got is read from its results, not from what it expected.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metallm_stream.cli.demo.recording import Recording
from metallm_stream.cli.demo.stranger import Log
from metallm_stream.evaluate import Utilities, Value, baselines, utilities

FAILED = -1


@dataclass(frozen=True, eq=False)
class Stream:
    """What came of n queries, in the order in which they were asked.

    Attributes
    ----------
    value
        What every arm would have given.
    arm
        `(n,)`, column of the arm that answered, `FAILED` where none did.
    quality, cost_usd, utility
        `(n,)`, of what was answered and charged.
    seconds
        `(n,)`, from the first decision to the query's own result.
    """

    value: Utilities
    arm: NDArray[np.int64]
    quality: NDArray[np.float64]
    cost_usd: NDArray[np.float64]
    utility: NDArray[np.float64]
    seconds: NDArray[np.float64]

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the columns."""
        return self.value.outcomes.arms

    def __len__(self) -> int:
        return len(self.arm)

    def service(self, rows: NDArray[np.int64]) -> Value:
        """Means over the queries at `rows`, as the service did it."""
        return Value(
            utility=float(self.utility[rows].mean()),
            quality=float(self.quality[rows].mean()),
            cost_usd=float(self.cost_usd[rows].mean()),
        )

    def baselines(self, rows: NDArray[np.int64]) -> dict[str, Value]:
        """Means over the same queries for every other way of choosing."""
        return baselines(self.value, rows)

    def parts(self) -> dict[str, NDArray[np.int64]]:
        """Rows of the parts that are reported."""
        rows = np.arange(len(self))
        return {"whole": rows, "second_half": rows[len(rows) // 2 :]}


def evaluate(log: Log, recording: Recording, cost_weight: float) -> Stream:
    """Measure what stands on the topics; a query without a result counts as one that failed."""
    results = [log.results.get(query_id, [{}])[0] for query_id in recording.query_ids]
    columns = {arm: column for column, arm in enumerate(recording.arms)}
    arm = np.array([columns.get(result.get("arm", ""), FAILED) for result in results])
    value = utilities(recording.outcomes, cost_weight)
    answered = value.outcomes.quality[np.arange(len(arm)), arm]
    quality = np.where(arm == FAILED, 0.0, answered)
    cost_usd = np.array([float(result.get("cost_usd", 0.0)) for result in results])
    return Stream(
        value=value,
        arm=arm,
        quality=quality,
        cost_usd=cost_usd,
        utility=quality - cost_weight * cost_usd / value.cost_scale_usd,
        seconds=_seconds(log, results),
    )


def _seconds(log: Log, results: Sequence[Mapping[str, Any]]) -> NDArray[np.float64]:
    began = min(_time(found[0]["decided_at"]) for found in log.decisions.values())
    ended = [_time(result["finished_at"]) if result else began for result in results]
    return np.array([(at - began).total_seconds() for at in ended])


def _time(written: str) -> datetime:
    return datetime.fromisoformat(written)
