"""Replays: nothing is known before its time, and runs of queries change nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from river.bandit.base import ArmID

from metallm_stream.evaluate import (
    Choices,
    Labels,
    Outcomes,
    Spending,
    Utilities,
    baselines,
    mean_part,
    parts,
    replay,
    utilities,
    within_budget,
)
from metallm_stream.evaluate.spending import WINDOW
from metallm_stream.join.reward import LEAST, MOST
from metallm_stream.policy import Beliefs
from metallm_stream.policy.batch_policy import BatchPolicy, Pulls
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge
from metallm_stream.policy.river_alone import RiverAlone
from metallm_stream.policy.river_policy import river_policy
from metallm_stream.policy.river_rule import RiverRule
from metallm_stream.policy.river_state import Taught
from metallm_stream.route.budget import WINDOW_QUERIES
from tests.indifferent import UniformPolicy

N, D = 600, 4
ARMS = ("dear", "fair", "poor")


def recorded(n: int = N) -> tuple[Outcomes, NDArray[np.float64]]:
    """`dear` is best where the first feature is positive, `fair` elsewhere; `poor` never."""
    rng = np.random.default_rng(12)
    contexts = rng.normal(size=(n, D))
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    quality = np.stack(
        [0.6 + 0.4 * contexts[:, 0], 0.6 - 0.4 * contexts[:, 0], np.full(n, 0.1)], axis=1
    )
    cost = np.tile([0.01, 0.002, 0.001], (n, 1))
    return Outcomes(ARMS, ("text",) * n, quality, cost), contexts


class OneByOne(MultiTaskRidge):
    """Makes the replay decide each query alone."""

    def until_refresh(self) -> float:
        """One at most."""
        return min(1.0, super().until_refresh())


class Diary(UniformPolicy):
    """Writes down how many queries were decided before each label came."""

    def __init__(self, seed: int | None = None) -> None:
        super().__init__(seed=seed)
        self.decided = 0
        self.known_at_decision: list[int] = []

    def until_refresh(self) -> float:
        """Always one."""
        return 1.0

    def pull_many(self, contexts: Any, arm_ids: Sequence[ArmID], **keywords: Any) -> Pulls:
        """Notes the labels known by now."""
        self.known_at_decision += [self._n] * len(contexts)
        return super().pull_many(contexts, arm_ids, **keywords)


def choices(
    policy: BatchPolicy,
    *,
    stream: Utilities | None = None,
    labels: Labels | None = None,
    order: NDArray[np.int64] | None = None,
) -> Choices:
    """A replay of the recorded outcomes."""
    outcomes, contexts = recorded()
    return replay(
        stream or utilities(outcomes, 0.1),
        contexts,
        policy,
        order=np.arange(N) if order is None else order,
        labels=labels or Labels(),
        rng=np.random.default_rng(1),
    )


@pytest.mark.parametrize(
    "labels", [Labels(), Labels(delay=25), Labels(fraction=0.3), Labels(0.4, 60), Labels(0.0)]
)
def test_deciding_in_runs_is_deciding_one_by_one(labels: Labels) -> None:
    """Runs end where the policy would change, so the choices are the same."""
    outcomes, _ = recorded()
    free = utilities(outcomes, 0.0)  # no costs: these are taken over at the beginning of a run
    together = choices(MultiTaskRidge(seed=3), stream=free, labels=labels)
    apart = choices(OneByOne(seed=3), stream=free, labels=labels)
    assert np.array_equal(together.columns, apart.columns)
    assert np.allclose(together.propensities, apart.propensities, atol=1e-9)


@pytest.mark.parametrize("delay", [0, 1, 7, 599, 5_000])
def test_labels_come_when_they_are_due(delay: int) -> None:
    """Query i is decided with the labels of the queries before i − delay, no more and no less."""
    diary = Diary(seed=2)
    choices(diary, labels=Labels(delay=delay))
    assert diary.known_at_decision == [max(0, i - delay) for i in range(N)]


def test_only_a_part_is_labelled() -> None:
    """The fraction is drawn at random, and drawn alike for one seed."""
    counts = []
    for _ in range(2):
        diary = Diary(seed=2)
        choices(diary, labels=Labels(fraction=0.25))
        counts.append(diary.known_at_decision)
    assert counts[0] == counts[1]
    assert 110 <= counts[0][-1] <= 190


def test_outcomes_of_other_arms_are_never_seen() -> None:
    """Spoiling what was not chosen changes neither choices nor propensities."""
    outcomes, contexts = recorded()
    stream = utilities(outcomes, 0.1)
    first = choices(MultiTaskRidge(seed=4), stream=stream)
    quality, cost = np.full((N, 3), 0.123), np.full((N, 3), 9.0)
    rows = np.arange(N)
    quality[rows, first.columns] = outcomes.quality[rows, first.columns]
    cost[rows, first.columns] = outcomes.cost_usd[rows, first.columns]
    spoilt = utilities(Outcomes(ARMS, outcomes.texts, quality, cost), 0.1)
    second = replay(
        spoilt,
        contexts,
        MultiTaskRidge(seed=4),
        order=rows,
        labels=Labels(),
        rng=np.random.default_rng(1),
    )
    assert np.array_equal(first.columns, second.columns)
    assert np.array_equal(first.propensities, second.propensities)


def test_learns_what_no_fixed_arm_can_do() -> None:
    """In its second half the policy beats the best fixed arm, and costs count."""
    outcomes, _ = recorded()
    stream, order = utilities(outcomes, 0.1), np.random.default_rng(5).permutation(N)
    whole, half = parts(stream, order, choices(MultiTaskRidge(seed=5), order=order))
    assert half.policy.utility > half.baselines["best_fixed"].utility + 0.05
    assert half.policy.utility <= half.baselines["oracle"].utility
    assert whole.shares["poor"] < 0.1
    costly = utilities(outcomes, 5.0)
    _, thrifty = parts(costly, order, choices(MultiTaskRidge(seed=5), stream=costly, order=order))
    assert thrifty.shares["dear"] < 0.1


def test_arms_of_unknown_cost_can_be_replayed_where_cost_does_not_count() -> None:
    """With weight 0 they take part, and means that include them are unknown, not zero."""
    outcomes, contexts = recorded()
    cost = outcomes.cost_usd.copy()
    cost[:, 1] = np.nan
    stream = utilities(Outcomes(ARMS, outcomes.texts, outcomes.quality, cost), 0.0)
    order = np.arange(N)
    made = replay(
        stream,
        contexts,
        MultiTaskRidge(seed=6),
        order=order,
        labels=Labels(),
        rng=np.random.default_rng(1),
    )
    whole, _ = parts(stream, order, made)
    assert whole.shares["fair"] > 0.2
    assert whole.policy.cost_usd is None
    assert whole.baselines["fixed:fair"].cost_usd is None
    assert whole.baselines["fixed:dear"].cost_usd == pytest.approx(0.01)
    assert whole.baselines["cheapest"].arm == "poor"


def test_baselines_are_what_they_say() -> None:
    """Utility is quality − weight · cost ÷ dearest mean; each baseline on the rows asked for."""
    quality = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.5], [1.0, 0.0]])
    cost = np.array([[4.0, 1.0], [2.0, 1.0], [2.0, 1.0], [0.0, 1.0]])
    stream = utilities(Outcomes(("a", "b"), ("t",) * 4, quality, cost), 0.5)
    assert stream.cost_scale_usd == 2.0
    assert stream.utility[:, 0].tolist() == [0.0, -0.5, 0.5, 1.0]
    found = baselines(stream, np.array([1, 2]))
    assert found["fixed:a"].utility == 0.0
    assert found["best_fixed"] == found["cheapest"] == found["fixed:b"]
    assert (found["fixed:b"].utility, found["fixed:b"].quality) == (0.5, 0.75)
    assert found["dearest"].arm == "a"
    assert found["uniform"].utility == 0.25
    assert found["oracle"].utility == 0.625
    assert found["oracle"].cost_usd == 1.5


def test_under_a_budget_the_best_arm_that_keeps_to_it_is_a_baseline() -> None:
    """By mean cost over the whole file, whatever the rows; where no arm does there is none."""
    quality, cost = np.array([[1.0, 0.0], [1.0, 0.5]]), np.array([[4.0, 1.0], [2.0, 2.0]])
    stream, last = utilities(Outcomes(("a", "b"), ("t",) * 2, quality, cost), 0.0), np.array([1])
    assert "best_fixed_within_budget" not in baselines(stream, last)
    found = {usd: baselines(stream, last, usd).get("best_fixed_within_budget") for usd in (1, 2, 3)}
    assert [value and value.arm for value in found.values()] == [None, "b", "a"]
    assert found[2] == baselines(stream, last)["fixed:b"]
    even = Outcomes(("a",), ("t",) * 3, np.ones((3, 1)), np.full((3, 1), 0.1))
    assert within_budget(even, 0.1).all()  # though the mean is 0.10000000000000002


def test_parts_average_over_shuffles_with_their_error() -> None:
    """Means of means, the standard error of the utility, and an arm only where it was the same."""
    outcomes, _ = recorded()
    stream = utilities(outcomes, 0.1)
    orders = [np.random.default_rng(seed).permutation(N) for seed in (1, 2, 3)]
    each = [
        parts(stream, order, choices(UniformPolicy(seed=seed), order=order))[1]
        for seed, order in enumerate(orders)
    ]
    mean = mean_part(each)
    values = [part.policy.utility for part in each]
    assert mean.policy.utility == pytest.approx(np.mean(values))
    assert mean.standard_error == pytest.approx(np.std(values, ddof=1) / 3**0.5)
    assert sum(mean.shares.values()) == pytest.approx(1)
    assert mean_part(each[:1]).standard_error is None
    plain = mean.as_json()
    assert plain["utility_standard_error"] == mean.standard_error
    assert plain["cost"] == mean.policy.cost_usd
    assert plain["baselines"]["cheapest"]["arm"] == "poor"  # type: ignore[index]
    assert "arm" not in plain["baselines"]["uniform"]  # type: ignore[index]


class Ledger:
    """Writes down what a budget is told; `fair` costs too much, and spending is priced at 0.5."""

    def __init__(self) -> None:
        self.expected: list[float] = []
        self.booked: list[tuple[int, float, int]] = []
        self.known: list[list[bool]] = []

    def limit(
        self, cost_usd: NDArray[np.float64], known: NDArray[np.bool_]
    ) -> tuple[float, NDArray[np.bool_]]:
        """Notes whose cost is known."""
        assert (cost_usd[known] > 0).all()
        self.known.append(known.tolist())
        return 0.5, np.array([True, False, True])

    def reserve(self, expected_usd: float) -> None:
        """Notes the expectation."""
        self.expected.append(expected_usd)

    def book(self, query: int, cost_usd: float) -> None:
        """Notes the cost, and when it became known."""
        self.booked.append((query, cost_usd, len(self.expected)))


class Prices(Diary):
    """Writes down the first query's penalties of each pull."""

    def __init__(self) -> None:
        super().__init__(seed=2)
        self.penalties: list[NDArray[np.float64]] = []

    def pull_many(self, contexts: Any, arm_ids: Sequence[ArmID], **keywords: Any) -> Pulls:
        """Notes what costs take."""
        self.penalties.append(keywords["penalties"][0])
        return super().pull_many(contexts, arm_ids, **keywords)


@pytest.mark.parametrize(("delay", "labels"), [(0, 0), (7, 0), (7, 30), (7, 3)])
def test_under_a_budget_each_query_is_decided_alone(delay: int, labels: int) -> None:
    """Reserved, then booked when its cost is known, labelled no sooner; the price is added."""
    outcomes, contexts = recorded()
    ledger, policy = Ledger(), Prices()
    made = replay(
        utilities(outcomes, 0.1),
        contexts,
        policy,
        order=np.arange(N),
        labels=Labels(delay=labels),
        rng=np.random.default_rng(1),
        budget=ledger,
        cost_delay=delay,
    )
    assert set(made.columns) == {0, 2}
    costs = outcomes.cost_usd[np.arange(N), made.columns].tolist()
    assert ledger.booked == [(i, costs[i], i + delay + 1) for i in range(N - 1 - delay)]
    assert not np.any(ledger.known[: delay + 1])
    assert ledger.known[-1] == [True, False, True]
    assert ledger.expected[-50:] == pytest.approx(costs[-50:])
    late = max(delay, labels)
    assert policy.known_at_decision == [max(0, i - late) for i in range(N)]
    assert policy.penalties[-1] == pytest.approx([0.6, 0.06, 0.06])


def test_a_policy_of_rivers_is_taught_what_the_learner_would_teach_it() -> None:
    """Quality less weighted cost by the decision's scale or itself, cut to −1 to 1, in order."""
    outcomes, contexts = recorded(60)
    cost = outcomes.cost_usd * np.where(np.arange(60) % 7 == 0, 30.0, 1.0)[:, None]
    stream = utilities(Outcomes(ARMS, outcomes.texts, outcomes.quality, cost), 0.5)
    policy = river_policy("river:LinUCBDisjoint")
    made = replay(
        stream,
        contexts,
        RiverAlone(policy, 0.2, dimensions=D, seed=4),
        order=np.arange(60),
        labels=Labels(),
        rng=np.random.default_rng(1),
    )
    taught = RiverRule(policy, 0.2, np.random.default_rng(4))
    paid = [cost[row, column] for row, column in enumerate(made.columns)]
    for row, column in enumerate(made.columns.tolist()):
        drawn = taught.probabilities(
            replace(Beliefs.nothing(ARMS, 1), contexts=contexts[row : row + 1]), None
        )
        assert drawn[0, column] == made.propensities[row]
        calls = [made.columns[:row] == k for k in range(3)]
        scale = max([np.mean(np.array(paid[:row])[own]) for own in calls if own.any()], default=1.0)
        scale = scale if calls[column].any() else max(scale, paid[row])
        utility = outcomes.quality[row, column] - 0.5 * paid[row] / scale
        taught.teach([Taught(ARMS[column], contexts[row], min(MOST, max(LEAST, utility)))])


@pytest.mark.parametrize(("fraction", "delay"), [(-0.1, 0), (1.1, 0), (0.5, -1)])
def test_labels_have_sensible_settings(fraction: float, delay: int) -> None:
    """A share is a share, and labels do not come before their query."""
    with pytest.raises(ValueError, match="fraction must be in"):
        Labels(fraction, delay)


def test_spending_is_judged_by_the_window_that_budgets_are() -> None:
    """And unknown where a stream is too short for one; of several replays the worst counts."""
    assert WINDOW == WINDOW_QUERIES
    short, long = (Spending.of(np.ones(n), 2.0) for n in (699, 700))
    assert (short, long) == (Spending(0.5, None), Spending(0.5, 0.5))
    assert Spending.over([long, Spending(0.7, 0.9)]) == Spending(0.6, 0.9)
    assert Spending.over([short, short]) == short


def test_costs_are_known_while_labels_are_not() -> None:
    """A call's cost comes with its answer: without any label the dear arm is still avoided."""
    outcomes, contexts = recorded()
    choices = replay(
        utilities(outcomes, cost_weight=1.0),
        contexts,
        MultiTaskRidge(seed=1),
        order=np.arange(N),
        labels=Labels(fraction=0.0),
        rng=np.random.default_rng(1),
    )
    assert np.mean(choices.columns[N // 2 :] == ARMS.index("dear")) < 0.1
