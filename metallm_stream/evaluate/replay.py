"""Replays logged outcomes through a policy that starts cold, as if the queries came in now.

Invariant: a choice depends only on what was known before its query: labels of earlier queries
that have arrived, and costs of earlier calls.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.evaluate.baselines import Utilities
from metallm_stream.policy import CHARACTERS, CostCurve, Usage, usage_of_call
from metallm_stream.policy.batch_policy import BatchPolicy


@dataclass(frozen=True)
class Labels:
    """When labels come.

    Attributes
    ----------
    fraction
        Share of the queries that are labelled at all, drawn at random.
    delay
        How many further queries are decided before a label is known; 0: the next one knows it.

    """

    fraction: float = 1.0
    delay: int = 0

    def __post_init__(self) -> None:
        if not (0 <= self.fraction <= 1 and self.delay >= 0):
            raise ValueError(f"fraction must be in [0, 1] and delay not negative, got {self}")


@dataclass(frozen=True, eq=False)
class Choices:
    """What a policy chose on a stream: columns `(n,)` and their propensities `(n,)`."""

    columns: NDArray[np.int64]
    propensities: NDArray[np.float64]


def replay(
    stream: Utilities,
    contexts: NDArray[np.floating],
    policy: BatchPolicy,
    *,
    order: NDArray[np.int64],
    labels: Labels,
    rng: np.random.Generator,
) -> Choices:
    """Let a fresh policy choose for each query in turn and learn from its choices alone.

    Queries are decided in runs within which the policy would not change: each run ends where
    the policy refreshes. The choices are those that one query at a time would give, except that
    mean costs are taken over at the beginning of a run.

    Parameters
    ----------
    stream
        Outcomes under a cost weight, in the order of the file.
    contexts
        Encoded queries, `(n, d)`, in the same order.
    policy
        Not updated so far.
    order
        Positions of the queries, in the order of the replay, `(m,)`; `Choices` is in this order.
    labels
        How many labels come, and when.
    rng
        Draws which queries are labelled.

    """
    run = _Run(stream, contexts[order], policy, order)
    labelled = rng.random(len(order)) < labels.fraction
    position = 0
    while position < len(order):
        run.learn(labelled, max(0, position - labels.delay))
        stop = _end_of_run(labelled, run.learned, position - labels.delay, policy.until_refresh())
        stop = min(len(order), max(stop + labels.delay, position + 1))
        run.choose(position, stop)
        position = stop
    return Choices(run.columns, run.propensities)


def _end_of_run(
    labelled: NDArray[np.bool_], learned: int, position: int, until_refresh: float
) -> int:
    """How many queries' labels may be known before the policy's next refresh is due."""
    waiting = np.flatnonzero(labelled[learned:]) + learned
    if len(waiting) < until_refresh:
        return len(labelled)
    return max(int(waiting[int(until_refresh) - 1]) + 1, position + 1)


class _Run:
    """The state of one replay: what was chosen, learned and paid so far."""

    def __init__(
        self,
        stream: Utilities,
        contexts: NDArray[np.floating],
        policy: BatchPolicy,
        order: NDArray[np.int64],
    ) -> None:
        arms = len(stream.outcomes.arms)
        self._arms = stream.outcomes.arms
        self._cost_weight = stream.cost_weight
        self._quality = stream.outcomes.quality[order]
        self._cost = np.nan_to_num(stream.outcomes.cost_usd[order])
        self._contexts = contexts
        self._policy = policy
        texts = stream.outcomes.texts
        self._lengths = np.array([len(texts[row]) for row in order]) / CHARACTERS
        self._usage = np.zeros((arms, len(Usage)))
        self.columns = np.zeros(len(order), dtype=np.int64)
        self.propensities = np.zeros(len(order))
        self.learned = 0

    def learn(self, labelled: NDArray[np.bool_], stop: int) -> None:
        """Give the policy the labels of the queries before `stop` that it does not have yet."""
        rows = np.flatnonzero(labelled[self.learned : stop]) + self.learned
        self.learned = max(self.learned, stop)
        if len(rows):
            chosen = self.columns[rows]
            self._policy.update_many(
                [self._arms[column] for column in chosen],
                self._contexts[rows],
                self._quality[rows, chosen],
            )

    def choose(self, start: int, stop: int) -> None:
        """Decide the queries from `start` to before `stop`, and pay for them."""
        curve = CostCurve.of(self._usage)
        penalties = self._penalties(curve, self._lengths[start:stop])
        pulls = self._policy.pull_many(
            self._contexts[start:stop],
            self._arms,
            penalties=penalties,
            variances=curve.variance(penalties, self._usage[:, Usage.CALLS]),
        )
        self.columns[start:stop] = pulls.columns
        self.propensities[start:stop] = pulls.propensities
        for row, column in enumerate(pulls.columns.tolist(), start):
            self._usage[column] += usage_of_call(
                cost_usd=self._cost[row, column],
                prompt_characters=self._lengths[row] * CHARACTERS,
            )

    def _penalties(self, curve: CostCurve, lengths: NDArray[np.float64]) -> NDArray[np.float64]:
        """Weighted expected costs, `(n, K)`; an arm never called counts as the cheapest known."""
        calls, spent = self._usage[:, [Usage.CALLS, Usage.COST_USD]].T
        called = calls > 0
        own = curve.own_lengths(self._usage)
        mean = spent / np.maximum(calls, 1.0) * curve.at_mean_length(own)
        expected = np.where(called, mean, mean[called].min(initial=np.inf) if called.any() else 0.0)
        relative = expected / (expected.max() or 1.0)
        return self._cost_weight * np.outer(curve.weighed(curve.of_queries(lengths)), relative)
