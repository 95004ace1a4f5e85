"""What the policy in force expects of every arm, for a batch of queries.

Invariant: what is not known is marked as not known. A guess may serve to weigh arms against each
other, but it is never reported as an expectation, and excludes an arm from hard budgets alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray

from metallm_stream.events import Model
from metallm_stream.policy import CHARACTERS, Beliefs, CostCurve, Published, Scores
from metallm_stream.policy.usage import NOTHING

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
    cost_usd, weighed_cost_usd
        Of one call, `(n, K)`; and as it counts when arms are weighed: see `policy.costs`. Where
        `cost_known`, `(K,)`, is False, the first is the dearest arm's, so that money lasts, and
        the second the cheapest one's, so that the arm is called once and known.
    untried
        Arms of unknown cost that have answered nothing yet, `(K,)`.
    latency_s
        Of one call, `(K,)`, with a guess where `latency_known` is False.
    failure_rate
        Share of calls that fail, `(K,)`, drawn to 0 by a few calls.
    observations, calls
        Labelled events, and calls, `(K,)`.
    noise_variance
        Of a quality around its expectation.
    label_share
        Labelled events a call so far, in (0, 1].
    cost_scale_usd
        Expected cost of the dearest arm, what costs are divided by; above 0.
    cost_curve
        How costs depend on the length of the prompt.
    policy_version
        0 while there is no policy.
    """

    scores: Scores | None
    cost_usd: Floats
    weighed_cost_usd: Floats
    cost_known: NDArray[np.bool_]
    untried: NDArray[np.bool_]
    latency_s: Floats
    latency_known: NDArray[np.bool_]
    failure_rate: Floats
    observations: Floats
    calls: Floats
    noise_variance: float
    label_share: float
    cost_scale_usd: float
    cost_curve: CostCurve
    policy_version: int

    @classmethod
    def of(
        cls,
        published: Published | None,
        catalogue: Mapping[str, Model],
        contexts: NDArray[np.float32],
        prompt_characters: Floats,
    ) -> Self:
        """The outlook of a policy on contexts `(n, d)` of prompts of so many characters, `(n,)`."""
        arms = list(catalogue)
        if published is None:
            return cls._nothing(len(contexts), len(arms))
        curve, at_mean_length = published.cost_curve, published.cost_usd(catalogue)
        relative = curve.of_queries(prompt_characters / CHARACTERS)
        known, dearest = _cost_known(published, catalogue), float(np.max(at_mean_length, initial=0))
        return cls(
            scores=published.scores(contexts, arms),
            cost_usd=np.outer(relative, np.where(known, at_mean_length, dearest)),
            weighed_cost_usd=np.outer(curve.weighed(relative), at_mean_length),
            cost_known=known,
            untried=~known & ~_answered(published, arms),
            latency_s=published.latency_s(catalogue),
            latency_known=_latency_known(published, catalogue),
            failure_rate=_failure_rate(published, arms),
            observations=published.observed(arms),
            calls=published.calls(catalogue),
            noise_variance=published.scorer.noise_variance,
            label_share=published.label_share,
            cost_scale_usd=dearest or 1.0,
            cost_curve=curve,
            policy_version=published.version,
        )

    @classmethod
    def _nothing(cls, n: int, k: int) -> Self:
        """Without a policy nothing is known."""
        none, unknown, costs = np.zeros(k), np.zeros(k, dtype=np.bool_), np.zeros((n, k))
        return cls(
            scores=None,
            cost_usd=costs,
            weighed_cost_usd=costs,
            cost_known=unknown,
            untried=~unknown,
            latency_s=none,
            latency_known=unknown,
            failure_rate=none,
            observations=none,
            calls=none,
            noise_variance=1.0,
            label_share=1.0,
            cost_scale_usd=1.0,
            cost_curve=CostCurve(),
            policy_version=0,
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
            return np.zeros(self.cost_usd.shape)
        cost = self.weighed_costs(cost_weight)
        latency = np.outer(latency_weight, self.latency_s / latency_scale_s)
        return self._answered(self.quality) - cost - latency

    def _answered(self, quality: Floats) -> Floats:
        """What comes of an answer of this quality; none is worth less than no answer."""
        return np.maximum(quality, 0.0) * (1.0 - self.failure_rate)

    def weighed_costs(self, cost_weight: Floats) -> Floats:
        """What costs take from the utility under weights `(n,)`, `(n, K)`."""
        return cost_weight[:, None] * (self.weighed_cost_usd / self.cost_scale_usd)

    def beliefs(self, utility: Floats, cost_weight: Floats, arms: Sequence[str]) -> Beliefs:
        """What a rule of choice may go by, given the utilities `(n, K)` of the named arms.

        Under cost weights `(n,)`, for a cost that few calls tell is as uncertain as a quality.
        """
        if self.scores is None:
            return replace(Beliefs.nothing(tuple(arms), len(utility)), utility=utility)
        beliefs = Beliefs(
            arms=tuple(arms),
            utility=utility,
            uncertainty=self.scores.uncertainty,
            observations=self.observations,
            noise_variance=self.noise_variance,
            label_share=self.label_share,
            headroom=1.0 - self.failure_rate - self._answered(self.scores.quality),
            calls=self.calls,
        )
        of_costs = self.cost_curve.variance(self.weighed_costs(cost_weight), self.calls)
        return beliefs.with_variance(of_costs)

    def costs_of(self, row: int, models: Sequence[Model]) -> dict[str, float]:
        """Expected cost of one query by each arm of the catalogue, USD."""
        costs = self.cost_usd[row].tolist()
        return {model.arm: usd for model, usd in zip(models, costs, strict=True)}

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


def _answered(published: Published, arms: Sequence[str]) -> NDArray[np.bool_]:
    """Arms that have answered, whether or not anybody tells what that costs."""
    records = [published.records.get(arm) for arm in arms]
    answers = [0.0 if r is None else r.calls * (1 - (r.failure_rate or 0.0)) for r in records]
    return np.array(answers) > NOTHING


def _latency_known(published: Published, catalogue: Mapping[str, Model]) -> NDArray[np.bool_]:
    timed = {arm for arm, record in published.records.items() if record.latency_s is not None}
    return np.array([arm in timed for arm in catalogue], dtype=np.bool_)
