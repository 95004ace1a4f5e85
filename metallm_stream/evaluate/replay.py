"""Replays logged outcomes through a policy that starts cold, as if the queries came in now.

Invariant: a choice depends only on what was known before its query: labels of earlier queries
that have arrived, and costs of earlier calls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metallm_stream.evaluate.baselines import Utilities
from metallm_stream.policy import CHARACTERS, CostCurve, Usage, usage_of_call
from metallm_stream.policy.batch_policy import Pulls

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
# Mean costs are taken over at least when so much more was decided.
COSTS_GROW = 0.05


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


class Replayed(Protocol):
    """A policy that can be replayed; see `BatchPolicy` for the methods.

    One that `learns_costs` is taught `quality − cost_weight · cost / cost_scale`, with the scale
    that was known at the decision, or the cost where that is more and the arm's was not known, as
    the learner teaches River's policies; others the quality.
    """

    learns_costs: ClassVar[bool]

    def until_refresh(self) -> float:
        """Labelled events until its expectations change."""

    def pull_many(
        self,
        contexts: NDArray[np.floating],
        arm_ids: Sequence[str],
        *,
        penalties: ArrayLike | None = None,
        variances: ArrayLike | None = None,
        allowed: Mask | None = None,
    ) -> Pulls:
        """Choose."""

    def update_many(
        self, arm_ids: Sequence[str], contexts: NDArray[np.floating], rewards: ArrayLike
    ) -> None:
        """Learn."""


class Budget(Protocol):
    """What limits spending where queries are decided in turn, as routers do under budgets."""

    def limit(self, cost_usd: Floats, known: Mask) -> tuple[float, Mask]:
        """What is added to the next query's cost weight, and the arms `(K,)` that fit."""

    def reserve(self, expected_usd: float) -> None:
        """The query was decided, and is expected to cost so much."""

    def book(self, query: int, cost_usd: float) -> None:
        """What the query that was decided as number `query` has cost is known now."""


@dataclass(frozen=True, eq=False)
class Choices:
    """What a policy chose on a stream: columns `(n,)` and their propensities `(n,)`."""

    columns: NDArray[np.int64]
    propensities: NDArray[np.float64]


def replay(
    stream: Utilities,
    contexts: NDArray[np.floating],
    policy: Replayed,
    *,
    order: NDArray[np.int64],
    labels: Labels,
    rng: np.random.Generator,
    budget: Budget | None = None,
    cost_delay: int = 0,
) -> Choices:
    """Let a fresh policy choose for each query in turn and learn from its choices alone.

    Queries are decided in runs within which the policy would not change: each run ends where
    the policy refreshes. The choices are those that one query at a time would give, except that
    mean costs are taken over at the beginning of a run, which is at most a twentieth of what was
    decided before. Under a budget each run is one query.

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
    budget
        Not charged so far; all costs must be known. None: none is in force.
    cost_delay
        How many further queries are decided before a call's cost is known; a label comes no
        sooner, since there is an answer only then.

    """
    run = _Run(stream, contexts[order], policy, order, budget)
    labelled = np.flatnonzero(rng.random(len(order)) < labels.fraction)
    delay = max(labels.delay, cost_delay)
    position = 0
    while position < len(order):
        run.book(max(0, position - cost_delay))
        run.learn(labelled, max(0, position - delay))
        stop = position + 1
        if budget is None:
            refresh = _refresh(labelled, run.learned, policy.until_refresh(), len(order)) + delay
            costs = position + math.ceil(COSTS_GROW * position)
            stop = min(len(order), max(stop, min(refresh, costs)))
        run.choose(position, stop)
        position = stop
    return Choices(run.columns, run.propensities)


def _refresh(labelled: NDArray[np.int64], learned: int, until_refresh: float, queries: int) -> int:
    """How many queries' labels may be known before the policy's next refresh is due."""
    last = int(np.searchsorted(labelled, learned)) + until_refresh - 1
    return int(labelled[int(last)]) + 1 if last < len(labelled) else queries


class _Run:
    """The state of one replay: what was chosen, learned and paid so far."""

    def __init__(
        self,
        stream: Utilities,
        contexts: NDArray[np.floating],
        policy: Replayed,
        order: NDArray[np.int64],
        budget: Budget | None,
    ) -> None:
        arms = len(stream.outcomes.arms)
        self._arms = stream.outcomes.arms
        self._cost_weight = stream.cost_weight
        self._quality = stream.outcomes.quality[order]
        self._cost = np.nan_to_num(stream.outcomes.cost_usd[order])
        self._contexts = contexts
        self._policy = policy
        self._budget = budget
        texts = stream.outcomes.texts
        self._lengths = np.array([len(texts[row]) for row in order]) / CHARACTERS
        self._usage = np.zeros((arms, len(Usage)))
        self._scale = np.ones(len(order))
        self._was_known = np.zeros(len(order), bool)  # what the chosen arm costs
        self.columns = np.zeros(len(order), dtype=np.int64)
        self.propensities = np.zeros(len(order))
        self.learned = 0
        self._booked = 0

    def book(self, stop: int) -> None:
        """Take in what the queries before `stop` have cost, of which it is not known yet."""
        for row in range(self._booked, stop):
            column, cost_usd = self.columns[row], float(self._cost[row, self.columns[row]])
            characters = self._lengths[row] * CHARACTERS
            self._usage[column] += usage_of_call(cost_usd=cost_usd, prompt_characters=characters)
            if self._budget is not None:
                self._budget.book(row, cost_usd)
        self._booked = stop

    def learn(self, labelled: NDArray[np.int64], stop: int) -> None:
        """Give the policy the labels of the queries before `stop` that it does not have yet."""
        rows = labelled[slice(*np.searchsorted(labelled, (self.learned, stop)))]
        self.learned = max(self.learned, stop)
        if len(rows):
            chosen = self.columns[rows]
            rewards = self._quality[rows, chosen]
            if self._policy.learns_costs:
                cost, scale = self._cost[rows, chosen], self._scale[rows]
                scale = np.where(self._was_known[rows], scale, np.maximum(scale, cost))
                rewards = rewards - self._cost_weight * cost / scale
            names = [self._arms[column] for column in chosen]
            self._policy.update_many(names, self._contexts[rows], rewards)

    def choose(self, start: int, stop: int) -> None:
        """Decide the queries from `start` to before `stop`."""
        rows = slice(start, stop)
        curve = CostCurve.of(self._usage)
        relative, mean = curve.of_queries(self._lengths[rows]), self._at_mean_length(curve)
        self._scale[rows] = scale = mean.max() or 1.0
        weighed = np.outer(curve.weighed(relative), mean / scale)
        penalties = self._cost_weight * weighed
        calls = self._usage[:, Usage.COST_CALLS]
        variances = curve.variance(penalties, calls)
        # An arm never called is weighed as the cheapest known, and reserved as the dearest.
        expected = np.outer(relative, np.where(calls > 0, mean, mean.max()))
        allowed = None
        if self._budget is not None:
            weight, fits = self._budget.limit(expected[0], calls > 0)
            penalties, allowed = penalties + weight * weighed, None if fits.all() else fits[None]
        pulls = self._policy.pull_many(
            self._contexts[rows],
            self._arms,
            penalties=penalties,
            variances=variances,
            allowed=allowed,
        )
        self.columns[rows] = pulls.columns
        self._was_known[rows] = self._usage[pulls.columns, Usage.CALLS] > 0
        self.propensities[rows] = pulls.propensities
        if self._budget is not None:
            self._budget.reserve(float(expected[0, pulls.columns[0]]))

    def _at_mean_length(self, curve: CostCurve) -> Floats:
        """Expected cost of each arm, `(K,)`; one never called counts as the cheapest known."""
        calls, spent = self._usage[:, [Usage.COST_CALLS, Usage.COST_USD]].T
        called = calls > 0
        own = curve.own_lengths(self._usage)
        mean = spent / np.maximum(calls, 1.0) * curve.at_mean_length(own)
        return np.where(called, mean, mean[called].min(initial=np.inf) if called.any() else 0.0)
