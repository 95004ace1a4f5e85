"""Input that no policy can learn from or decide: refused by name, and nothing is changed by it."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metallm_stream.policy import fit
from metallm_stream.policy.batch_policy import BatchPolicy
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge
from metallm_stream.policy.river_alone import RiverAlone
from metallm_stream.policy.river_policy import river_policy
from tests.indifferent import UniformPolicy

ARMS = ["a", "b"]
FINE = np.random.default_rng(1).normal(size=(3, 2))
NAN, INF = float("nan"), float("inf")


def known(make: Callable[..., BatchPolicy] = MultiTaskRidge) -> BatchPolicy:
    """A policy that has learned two arms on contexts `(n, 2)`."""
    rng = np.random.default_rng(2)
    policy = make(seed=3)
    policy.update_many(ARMS * 30, rng.normal(size=(60, 2)), rng.random(60))
    return policy


def state(policy: BatchPolicy) -> bytes:
    """All that a policy remembers, random generator included."""
    return pickle.dumps(policy.__dict__)


@pytest.mark.parametrize("make", [MultiTaskRidge, UniformPolicy])
@pytest.mark.parametrize(
    ("arms", "contexts", "rewards", "message"),
    [
        (["a", "b", "new"], [[1, 2], [3, NAN], [5, 6]], [1, 1, 1], "contexts must be finite.* 1 "),
        (["a"], [[1, 2, INF]], [1], "contexts must be finite.* event 0"),
        (["a", "b", "new"], FINE, [1.0, 0.5, NAN], "rewards must be finite.* event 2"),
        (["a", "b", "new"], FINE, [1.0, -INF, 1.0], "rewards must be finite.* event 1"),
        (["a", "b"], FINE, [1.0, 1.0], r"\(3, 2\) and \(2,\)"),
        (["a"], [[1.0, 1e155]], [1.0], r"contexts must be finite and below 1e\+100.* event 0"),
        (["a", "b", "new"], FINE, [1.0, -1e155, 1.0], r"rewards .* below 1e\+100.* event 1"),
        (["a", "b", "a"], FINE, [1.0, 1.0], r"one a pulled arm.* \(2,\)"),
        (["a", "b", "a"], FINE, 1.0, "rewards"),
        (["a", "b", "a"], FINE, FINE, "rewards"),
        (["a"], [1.0, 2.0], [1.0], r"shape \(n, d\)"),
        ([], FINE, [1.0], "rewards"),
        (["a"], [[1.0, 2.0, 3.0]], [1.0], "contexts must have 2 features.* got 3"),
        (["a"], [[1.0]], [1.0], "contexts must have 2 features.* got 1"),
    ],
)
def test_a_refused_update_changes_nothing(
    make: Callable[..., BatchPolicy], arms: list[str], contexts: Any, rewards: Any, message: str
) -> None:
    """No feature, arm, event or refresh comes of it, also of the events that were in order."""
    policy = known(make)
    before = state(policy)
    with pytest.raises(ValueError, match=message):
        policy.update_many(arms, contexts, rewards)
    assert state(policy) == before


@pytest.mark.parametrize(
    ("context", "reward", "message"),
    [
        ({0: 1.0, "late": NAN}, 1.0, "contexts must be finite"),
        ({"late": INF}, 1.0, "contexts must be finite"),
        ({"late": 1.0}, NAN, "rewards must be finite"),
        (None, INF, "rewards must be finite"),
        ({"late": 1e155}, 1.0, "contexts must be finite and below"),
        (None, 1e155, "rewards must be finite and below"),
    ],
)
def test_a_refused_dict_changes_nothing(
    context: dict[Any, float] | None, reward: float, message: str
) -> None:
    """River's way of an update is checked alike."""
    policy = known()
    before = state(policy)
    with pytest.raises(ValueError, match=message):
        policy.update("a", context, reward)
    assert state(policy) == before


@pytest.mark.parametrize(
    ("contexts", "arms", "options", "message"),
    [
        ([[1.0, NAN]], ARMS, {}, "contexts must be finite, that of query 0"),
        ([[1.0, 2.0], [INF, 0.0]], ARMS, {}, "contexts must be finite, that of query 1"),
        ([1.0, 2.0], ARMS, {}, r"shape \(n, d\)"),
        ([[1.0, 2.0]], [], {}, "there is no arm to choose from"),
        ([[1.0, 2.0, 3.0]], ARMS, {}, "contexts must have 2 features.* got 3"),
        (np.zeros((4, 0)), ARMS, {}, "contexts must have 2 features.* got 0"),
        ([[1.0, 2.0]], ["a", "b", "a"], {}, "arm 'a' is named more than once"),
        ([[1.0, 2.0]], ["new", 1, "1"], {}, "arm '1' is named more than once"),
        ([[1.0, 2.0]], ARMS, {"penalties": [NAN, 0.0]}, "penalties must be finite.* query 0"),
        ([[1.0, 2.0]], ARMS, {"penalties": [[0.0, INF]]}, "penalties must be finite"),
        ([[1.0, 2.0]], ARMS, {"penalties": np.zeros((2, 2))}, r"penalties .*\(1, 2\).*\(2, 2\)"),
        ([[1.0, 2.0]], ARMS, {"penalties": np.zeros(3)}, r"penalties .*\(1, 2\).* got \(3,\)"),
        ([[1.0, 2.0]], ARMS, {"variances": [0.0, INF]}, "variances must be finite"),
        ([[1.0, 2.0]], ARMS, {"variances": [0.0, -0.5]}, "variances must not be negative, got -0"),
        ([[1.0, 2.0]], ARMS, {"variances": np.zeros(3)}, r"variances .*\(1, 2\).* got \(3,\)"),
        ([[1.0, 2.0]], ARMS, {"allowed": np.zeros((1, 2), bool)}, "query 0 .* allows no arm"),
        ([[1.0, 2.0]], ARMS, {"allowed": np.ones((2, 2), bool)}, r"allowed .*\(1, 2\).*\(2, 2\)"),
    ],
)
def test_a_refused_pull_changes_nothing(
    contexts: Any, arms: list[str], options: dict[str, Any], message: str
) -> None:
    """Neither is a random number drawn, so later choices are what they would have been."""
    policy = known()
    before = state(policy)
    with pytest.raises(ValueError, match=message):
        policy.pull_many(contexts, arms, **options)
    assert state(policy) == before


def test_a_pull_of_a_dict_that_is_not_finite_is_refused() -> None:
    """An encoder that fails must not turn into a choice."""
    with pytest.raises(ValueError, match="finite"):
        known().pull(ARMS, {0: NAN})


@pytest.mark.parametrize("make", [MultiTaskRidge, UniformPolicy])
def test_a_pull_of_a_dict_names_each_arm_once(make: Callable[..., BatchPolicy]) -> None:
    """As one of an array does: an arm that is named twice would be chosen twice as often."""
    with pytest.raises(ValueError, match="arm 'b' is named more than once"):
        known(make).pull(["b", "a", "b"], {0: 1.0})


def test_a_fit_names_each_arm_once() -> None:
    """Its events would count twice in what arms share."""
    sums = known().sums  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="arm 'a' is named more than once"):
        fit(sums, ["a", "b", "a"])


def test_penalties_of_excluded_arms_do_not_matter() -> None:
    """An arm whose cost is not known at all can still be excluded."""
    allowed = np.array([[True, False]])
    pulls = known().pull_many([[1.0, 2.0]], ARMS, penalties=[0.0, NAN], allowed=allowed)
    assert pulls.probabilities.tolist() == [[1.0, 0.0]]


def test_arrays_keep_their_width_where_dicts_bring_further_features() -> None:
    """To arrays those are 0; before any event a pull may have any width, as nothing is known."""
    policy = MultiTaskRidge(seed=3)
    policy.pull_many(np.zeros((1, 7)), ARMS)
    policy.update_many([], np.zeros((0, 7)), [])
    policy.update("a", {0: 1.0}, 1.0)
    policy.update_many(ARMS, [[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0])
    policy.update("a", {0: 1.0, "late": 1.0}, 1.0)
    assert policy.sums.dimensions == 3
    policy.update_many(ARMS, [[1.0, 0.0], [0.0, 1.0]], [1.0, 0.0])
    with pytest.raises(ValueError, match=r"contexts must have 2 features.* got 3"):
        policy.pull_many(np.zeros((1, 3)), ARMS)


@pytest.mark.parametrize("width", [1, 3])
def test_a_policy_of_rivers_takes_contexts_of_its_dimensions_alone(width: int) -> None:
    """Others would move the constant that stands behind the features."""
    alone = RiverAlone(river_policy("river:LinUCBDisjoint"), 0.1, dimensions=2, seed=1)
    refused = rf"contexts must be of shape \(n, 2\), got \(1, {width}\)"
    with pytest.raises(ValueError, match=refused):
        alone.update_many(["a"], np.ones((1, width)), [1.0])
    with pytest.raises(ValueError, match=refused):
        alone.pull_many(np.ones((1, width)), ARMS)


@pytest.mark.parametrize("drift", [None, "adwin"])
def test_arms_never_seen_are_chosen_from_gracefully(drift: str | None) -> None:
    """Before any learning, and when none of the arms asked for has events."""
    fresh = MultiTaskRidge(seed=1, drift=drift).pull_many(FINE, ["x", "y"])
    assert np.allclose(fresh.probabilities, 0.5)
    learned = known().pull_many(FINE, ["x", "y", "z"])
    assert np.allclose(learned.probabilities, 1 / 3)
    assert np.isfinite(known().pull_many(FINE, ["x", "a"]).probabilities).all()


@pytest.mark.parametrize("rewards", [[0.0] * 40, [1.0] * 40, [1e6, -1e6] * 20])
def test_rewards_without_spread_or_out_of_range_stay_finite(rewards: list[float]) -> None:
    """Also on contexts that are all the same."""
    for contexts in (np.ones((40, 3)), np.random.default_rng(6).normal(size=(40, 3))):
        policy = MultiTaskRidge(seed=1)
        policy.update_many(ARMS * 20, contexts, rewards)
        probabilities = policy.pull_many(5 * np.eye(3), [*ARMS, "new"]).probabilities
        assert np.isfinite(probabilities).all()
        assert np.allclose(probabilities.sum(axis=1), 1)
