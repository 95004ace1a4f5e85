"""How much quality a query gives for money and for time.

Invariant: what a query says itself counts, and the defaults count for nothing else.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Query


@dataclass(frozen=True, slots=True)
class TradeOff:
    """What a query that says nothing of its own is weighed by.

    Parameters
    ----------
    cost_weight
        Quality that one gives up to save the expected cost of the dearest arm; not negative.
    latency_weight
        Quality that one gives up to save `latency_scale_s` seconds; not negative.
    latency_scale_s
        Above 0. `ValueError` if any of the three is out of range.

    """

    cost_weight: float
    latency_weight: float
    latency_scale_s: float

    def __post_init__(self) -> None:
        finite = np.isfinite([self.cost_weight, self.latency_weight, self.latency_scale_s]).all()
        positive = min(self.cost_weight, self.latency_weight) >= 0 and self.latency_scale_s > 0
        if not (finite and positive):
            raise ValueError(f"weights must be at least 0 and the scale above 0, got {self}")

    def weights(self, queries: Sequence[Query]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Cost weight and latency weight of each query, `(n,)` each.

        >>> TradeOff(0.1, 0.0, 10.0).weights([Query(query_id="q", text="t", cost_weight=0.3)])
        (array([0.3]), array([0.]))
        """
        own = [(query.cost_weight, query.latency_weight) for query in queries]
        cost = [self.cost_weight if weight is None else weight for weight, _ in own]
        latency = [self.latency_weight if weight is None else weight for _, weight in own]
        return np.array(cost, dtype=np.float64), np.array(latency, dtype=np.float64)
