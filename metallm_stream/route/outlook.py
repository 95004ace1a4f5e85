"""What the policy in force expects of every arm, for a batch of queries.

Invariant: what is not known is marked as not known. A guess may serve to weigh arms against each
other, but it never excludes an arm and is never reported as an expectation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Model
from metallm_stream.policy import Beliefs, Published, Scores

Floats = NDArray[np.float64]
# One failure among the first calls of an arm says little of it.
_SOUND_CALLS = 10.0


@dataclass(frozen=True, eq=False)
class Outlook:
    """Expectations for n queries and K arms, in the catalogue's order.

    Attributes
    ----------
    scores
        Quality, leverage and uncertainty, `(n, K)` each, or None while there is no policy.
    cost_usd, latency_s
        Of one call, `(K,)`, with a guess where `cost_known`, `latency_known` is False.
    failure_rate
        Share of calls that fail, `(K,)`, drawn to 0 by a few calls.
    observations
        Labelled events, `(K,)`.
    noise_variance
        Of a quality around its expectation.
    label_share
        Labelled events a call so far, in (0, 1].
    cost_scale_usd
        Expected cost of the dearest arm, what costs are divided by; above 0.
    policy_version
        0 while there is no policy.
    """

    scores: Scores | None
    cost_usd: Floats
    cost_known: NDArray[np.bool_]
    latency_s: Floats
    latency_known: NDArray[np.bool_]
    failure_rate: Floats
    observations: Floats
    noise_variance: float
    label_share: float
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
            return cls(None, none, unknown, none, unknown, none, none, 1.0, 1.0, 1.0, 0)
        return cls(
            scores=published.scores(contexts, arms),
            cost_usd=published.cost_usd(catalogue),
            cost_known=_cost_known(published, catalogue),
            latency_s=published.latency_s(catalogue),
            latency_known=_latency_known(published, catalogue),
            failure_rate=_failure_rate(published, arms),
            observations=published.observed(arms),
            noise_variance=published.scorer.noise_variance,
            label_share=published.label_share,
            cost_scale_usd=published.cost_scale(catalogue),
            policy_version=published.version,
        )

    @property
    def quality(self) -> Floats | None:
        """Expected quality of an answer, `(n, K)`, or None while there is no policy."""
        return None if self.scores is None else self.scores.quality

    def utility(
        self, cost_weight: Floats, latency_weight: Floats, latency_scale_s: float
    ) -> Floats:
        """What the user gets, less what it costs, `(n, K)`.

        `quality·(1 − failure_rate) − cost_weight·cost/cost_scale − latency_weight·latency/scale`:
        a failure is worth 0. The weights are `(n,)`, one a query. 0 for every arm while there is no
        policy.
        """
        if self.quality is None:
            return np.zeros((len(cost_weight), len(self.cost_usd)))
        cost = np.outer(cost_weight, self.cost_usd / self.cost_scale_usd)
        latency = np.outer(latency_weight, self.latency_s / latency_scale_s)
        return self.quality * (1.0 - self.failure_rate) - cost - latency

    def beliefs(self, utility: Floats, arms: Sequence[str]) -> Beliefs:
        """What a rule of choice may go by, given the utilities `(n, K)` of the named arms."""
        if self.scores is None:
            return replace(Beliefs.nothing(tuple(arms), len(utility)), utility=utility)
        return Beliefs(
            arms=tuple(arms),
            utility=utility,
            uncertainty=self.scores.uncertainty,
            observations=self.observations,
            noise_variance=self.noise_variance,
            label_share=self.label_share,
        )

    def sure_quality(self) -> Floats | None:
        """Quality less one standard deviation, leverage included, `(n, K)`; None without policy."""
        if self.scores is None:
            return None
        uncertainty = self.scores.uncertainty + self.scores.leverage
        return self.scores.quality - np.sqrt(self.noise_variance * uncertainty)


def _failure_rate(published: Published, arms: Sequence[str]) -> Floats:
    """Failures and refusals a call, as if `_SOUND_CALLS` more had gone well."""
    rates = []
    for arm in arms:
        record = published.records.get(arm)
        calls = record.calls if record is not None else 0.0
        rate = record.failure_rate or 0.0 if record is not None else 0.0
        rates.append(rate * calls / (calls + _SOUND_CALLS))
    return np.array(rates, dtype=np.float64)


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
