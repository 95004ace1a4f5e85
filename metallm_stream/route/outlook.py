"""What the policy in force expects of every arm, for a batch of queries.

Invariant: what is not known is marked as not known. A guess may serve to weigh arms against each
other, but it never excludes an arm and is never reported as an expectation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Model
from metallm_stream.policy import Published

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Outlook:
    """Expectations for n queries and K arms, in the catalogue's order.

    Attributes
    ----------
    quality
        `(n, K)`, or None while there is no policy.
    cost_usd, latency_s
        Of one call, `(K,)`, with a guess where `cost_known`, `latency_known` is False.
    observations
        Labelled events, `(K,)`.
    cost_scale_usd
        Expected cost of the dearest arm, what costs are divided by; above 0.
    policy_version
        0 while there is no policy.
    """

    quality: Floats | None
    cost_usd: Floats
    cost_known: NDArray[np.bool_]
    latency_s: Floats
    latency_known: NDArray[np.bool_]
    observations: Floats
    cost_scale_usd: float
    policy_version: int

    @classmethod
    def of(
        cls,
        published: Published | None,
        catalogue: Mapping[str, Model],
        contexts: NDArray[np.float32],
    ) -> Self:
        """The outlook of a policy on contexts `(n, d)`; without a policy nothing is known."""
        arms = list(catalogue)
        none = np.zeros(len(arms))
        unknown = none.astype(bool)
        if published is None:
            return cls(None, none, unknown, none, unknown, none, 1.0, 0)
        return cls(
            quality=published.quality(contexts, arms),
            cost_usd=published.cost_usd(catalogue),
            cost_known=_cost_known(published, catalogue),
            latency_s=published.latency_s(catalogue),
            latency_known=_latency_known(published, catalogue),
            observations=published.observed(arms),
            cost_scale_usd=published.cost_scale(catalogue),
            policy_version=published.version,
        )

    def utility(
        self, cost_weight: Floats, latency_weight: Floats, latency_scale_s: float
    ) -> Floats:
        """`quality − cost_weight·cost/cost_scale − latency_weight·latency/latency_scale`, `(n, K)`.

        The weights are `(n,)`, one a query. 0 for every arm while there is no policy.
        """
        if self.quality is None:
            return np.zeros((len(cost_weight), len(self.cost_usd)))
        cost = np.outer(cost_weight, self.cost_usd / self.cost_scale_usd)
        return self.quality - cost - np.outer(latency_weight, self.latency_s / latency_scale_s)


def _cost_known(published: Published, catalogue: Mapping[str, Model]) -> NDArray[np.bool_]:
    """Arms whose cost follows from calls of their own, or from a price and anybody's tokens."""
    tokens = any(record.input_tokens is not None for record in published.records.values())
    booked = {arm for arm, record in published.records.items() if record.cost_usd is not None}
    known = [
        arm in booked or (model.price is not None and tokens) for arm, model in catalogue.items()
    ]
    return np.array(known, dtype=np.bool_)


def _latency_known(published: Published, catalogue: Mapping[str, Model]) -> NDArray[np.bool_]:
    timed = {arm for arm, record in published.records.items() if record.latency_s is not None}
    return np.array([arm in timed for arm in catalogue], dtype=np.bool_)
