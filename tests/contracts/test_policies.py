"""One contract for all contextual policies, River's own LinUCB among them."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from river.bandit import LinUCBDisjoint, evaluate, evaluate_offline

from metallm_stream.policy.batch_policy import Pulls
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge
from tests.indifferent import FixedPolicy, UniformPolicy

ARMS = ["large", "medium", "small"]
WIDTH = 4


class BatchLinUCB(LinUCBDisjoint):
    """River's LinUCB with the array calls, row by row; ties are even, anything else is certain."""

    def pull_many(
        self, contexts: Any, arm_ids: Sequence[str], *, penalties: Any = 0.0, allowed: Any = None
    ) -> Pulls:
        """The arm of the highest upper bound for each row."""
        rows = np.asarray(contexts, dtype=float)
        bounds = np.array([[self._bound(arm, row) for arm in arm_ids] for row in rows])
        bounds = bounds - np.asarray(penalties)
        mask = np.ones(bounds.shape, bool) if allowed is None else allowed
        bounds = np.where(mask, bounds, -np.inf)
        best = bounds == bounds.max(axis=1, keepdims=True)
        columns = [self._rng.choice(np.flatnonzero(row).tolist()) for row in best]
        return Pulls(np.array(columns), best / best.sum(axis=1, keepdims=True))

    def update_many(self, arm_ids: Sequence[str], contexts: Any, rewards: Any) -> None:
        """One update after the other."""
        for arm, row, reward in zip(arm_ids, np.asarray(contexts), rewards, strict=True):
            self.update(arm, dict(enumerate(row.tolist())), float(reward))

    def _bound(self, arm: str, row: Any) -> float:
        regression = copy.deepcopy(self._bayes_lin_regs[arm])
        expected = regression.predict_one(dict(enumerate(row.tolist())), with_dist=True)
        return float(expected.mu + expected.sigma)


LEARNERS = {
    "ridge-elimination": lambda: MultiTaskRidge(seed=11),
    "ridge-igw": lambda: MultiTaskRidge("ridge-igw", seed=11),
    "ridge-thompson": lambda: MultiTaskRidge("ridge-thompson", seed=11),
    "ridge-forgetting": lambda: MultiTaskRidge(half_life=100.0, seed=11),
    "river-linucb": lambda: BatchLinUCB(seed=11),
}
POLICIES: dict[str, Callable[[], Any]] = {
    **LEARNERS,
    "ridge-uniform": lambda: MultiTaskRidge("uniform", seed=11),
    "uniform": lambda: UniformPolicy(seed=11),
    "fixed": lambda: FixedPolicy("medium", seed=11),
}


@pytest.fixture(params=POLICIES)
def make(request: pytest.FixtureRequest) -> Callable[[], Any]:
    """A function that makes the same policy again and again."""
    return POLICIES[request.param]


def stream(n: int, seed: int = 3) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Logged events: arms, contexts of unit norm, and rewards that favour `large`."""
    rng = np.random.default_rng(seed)
    contexts = rng.normal(size=(n, WIDTH))
    contexts /= np.linalg.norm(contexts, axis=1, keepdims=True)
    arms = rng.integers(len(ARMS), size=n)
    rewards = np.where(arms == 0, 0.9, 0.2) + 0.05 * contexts[:, 0]
    return [ARMS[arm] for arm in arms], contexts, rewards


def as_dict(row: np.ndarray) -> dict[int, float]:
    """A row of an array as River's dict context."""
    return dict(enumerate(row.tolist()))


def taught(make: Callable[[], Any], n: int = 120) -> Any:
    """A policy that has learned from the logged events."""
    policy = make()
    policy.update_many(*stream(n))
    return policy


def test_works_before_any_learning(make: Callable[[], Any]) -> None:
    """A fresh policy chooses one of the arms, by dict and by array."""
    assert make().pull(ARMS, {0: 0.5, 1: -0.5}) in ARMS
    pulls = make().pull_many(np.eye(WIDTH), ARMS)
    assert pulls.columns.shape == (WIDTH,)
    assert set(pulls.columns) <= {0, 1, 2}


def test_leaves_inputs_alone(make: Callable[[], Any]) -> None:
    """No call changes the lists, dicts and arrays that it is given."""
    policy = make()
    arms, contexts, rewards = stream(20)
    context = as_dict(contexts[0])
    given = copy.deepcopy((arms, contexts, rewards, context, ARMS))
    policy.pull(ARMS, context)
    policy.update("large", context, 0.5)
    policy.pull_many(contexts, ARMS)
    policy.update_many(arms, contexts, rewards)
    for before, after in zip(given, (arms, contexts, rewards, context, ARMS), strict=True):
        assert np.array_equal(before, after)


def test_pulling_teaches_nothing(make: Callable[[], Any]) -> None:
    """Any number of pulls leaves probabilities, counts and ranking as they were."""
    policy = taught(make)
    _, contexts, _ = stream(30, seed=4)
    before = policy.pull_many(contexts, ARMS).probabilities
    known = (policy.ranking, dict(policy._counts), policy._n)
    for row in contexts:
        policy.pull([*ARMS, "new"], as_dict(row))
    assert (policy.ranking, dict(policy._counts), policy._n) == known
    assert np.array_equal(policy.pull_many(contexts, ARMS).probabilities, before)


def test_survives_pickling(make: Callable[[], Any]) -> None:
    """A policy restored from a pickle goes on exactly as the original does."""
    policy = taught(make)
    twin = pickle.loads(pickle.dumps(policy))  # noqa: S301 - our own bytes
    arms, contexts, rewards = stream(60, seed=5)
    for each in (policy, twin):
        each.update_many(arms, contexts, rewards)
    ours, theirs = (each.pull_many(contexts, ARMS) for each in (policy, twin))
    assert np.array_equal(ours.columns, theirs.columns)
    assert np.array_equal(ours.probabilities, theirs.probabilities)


def test_same_seed_same_choices(make: Callable[[], Any]) -> None:
    """Two policies with one seed choose alike, one query at a time and in batches."""
    first, second = taught(make), taught(make)
    _, contexts, _ = stream(80, seed=6)
    assert [first.pull(ARMS, as_dict(row)) for row in contexts] == [
        second.pull(ARMS, as_dict(row)) for row in contexts
    ]
    assert np.array_equal(
        first.pull_many(contexts, ARMS).columns, second.pull_many(contexts, ARMS).columns
    )


def test_chooses_only_what_is_asked_for(make: Callable[[], Any]) -> None:
    """Arms that are not listed, or masked for a query, are never chosen."""
    policy = taught(make)
    _, contexts, _ = stream(80, seed=7)
    assert {policy.pull(["small", "medium"], as_dict(row)) for row in contexts} <= {
        "small",
        "medium",
    }
    allowed = np.random.default_rng(1).random((80, 3)) < 0.5
    allowed[~allowed.any(axis=1), 2] = True
    pulls = policy.pull_many(contexts, ARMS, allowed=allowed)
    assert allowed[np.arange(80), pulls.columns].all()
    assert (pulls.probabilities[~allowed] == 0).all()


def test_probabilities_are_those_of_the_choice(make: Callable[[], Any]) -> None:
    """Rows sum to one, and a propensity is the probability of the arm that was drawn."""
    pulls = taught(make).pull_many(stream(50, seed=8)[1], ARMS)
    assert np.allclose(pulls.probabilities.sum(axis=1), 1, atol=1e-12)
    assert (pulls.propensities > 0).all()
    assert np.array_equal(pulls.propensities, pulls.probabilities[np.arange(50), pulls.columns])


@pytest.mark.parametrize("cuts", [(), (1, 2, 3), (40, 41, 90), tuple(range(1, 150))])
def test_batches_do_not_matter(make: Callable[[], Any], cuts: tuple[int, ...]) -> None:
    """`update_many`, however it is cut, is the same as `update` for each event."""
    arms, contexts, rewards = stream(150)
    together, apart = make(), make()
    for arm, row, reward in zip(arms, contexts, rewards, strict=True):
        apart.update(arm, as_dict(row), float(reward))
    for start, stop in zip((0, *cuts), (*cuts, 150), strict=True):
        together.update_many(arms[start:stop], contexts[start:stop], rewards[start:stop])
    queries = stream(20, seed=9)[1]
    assert np.allclose(
        together.pull_many(queries, ARMS).probabilities,
        apart.pull_many(queries, ARMS).probabilities,
        atol=1e-9,
    )
    assert together.ranking == apart.ranking


@pytest.mark.parametrize("name", LEARNERS)
def test_learns_an_obviously_better_arm(name: str) -> None:
    """From its own choices alone, a learner comes to prefer the arm that is much better."""
    policy = LEARNERS[name]()
    rng = np.random.default_rng(10)
    late = []
    for step in range(400):
        context = {"constant": 1.0, **as_dict(rng.normal(size=WIDTH) / 2)}  # LinUCB has no mean
        arm = policy.pull(ARMS, context)
        policy.update(arm, context, 0.9 if arm == "small" else 0.1)
        late += [arm] * (step >= 300)
    assert late.count("small") >= 90


def test_clones_start_fresh(make: Callable[[], Any]) -> None:
    """River's `clone` gives the same parameters without what was learned."""
    clone = taught(make).clone()
    assert clone._n == 0
    assert clone._get_params() == make()._get_params()


def test_runs_in_rivers_offline_evaluation(make: Callable[[], Any]) -> None:
    """`river.bandit.evaluate_offline` replays a log of dict contexts through the policy."""
    arms, contexts, rewards = stream(200)
    history = (
        (ARMS, as_dict(row), a, r) for a, row, r in zip(arms, contexts, rewards, strict=True)
    )
    total, used = evaluate_offline(make(), history)
    assert 20 <= used <= 200
    assert 0 < total.get() < 200


class Coins:
    """An environment in the form that `river.bandit.evaluate` asks for: arm 1 pays, arm 0 not."""

    class Space:
        """Two arms."""

        n = 2

        def seed(self, _seed: int) -> None:
            """Nothing is random."""

    def __init__(self) -> None:
        self.action_space = self.Space()
        self.steps = 0

    def reset(self, seed: int) -> None:  # noqa: ARG002 - nothing is random
        """Begin again."""
        self.steps = 0

    def step(self, arm: int) -> tuple[None, float, bool, bool, dict[str, Any]]:
        """Observation, reward, terminated, truncated, info."""
        self.steps += 1
        return None, float(arm), self.steps >= 60, False, {}


@pytest.mark.parametrize(
    "policy", [MultiTaskRidge(seed=1), UniformPolicy(seed=1), FixedPolicy("1", seed=1)]
)
def test_runs_in_rivers_evaluation(policy: Any) -> None:
    """`river.bandit.evaluate`, which knows no contexts, runs our policies."""
    trace = list(evaluate([policy], Coins(), n_episodes=2, seed=3))
    assert len(trace) == 120
    assert policy._n == 0
    if not isinstance(policy, UniformPolicy):
        assert trace[-1]["reward_stat"] >= 40
