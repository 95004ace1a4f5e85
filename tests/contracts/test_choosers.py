"""One contract for all rules of choice in the registry."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metallm_stream.policy import CHOOSERS, Chooser, chooser, sample

NAMES = [f"{name}:b" if name == "fixed" else name for name in CHOOSERS]
EXPLORING = [name for name in NAMES if not name.startswith("fixed")]


@st.composite
def situations(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[str]]:
    """Utilities, allowed arms (at least one a row), observations and names of 1 to 6 arms."""
    n, k = draw(st.integers(1, 5)), draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1e-9, 1.0, 1e6]))
    allowed = rng.random((n, k)) < draw(st.sampled_from([0.3, 1.0]))
    allowed[~allowed.any(axis=1), 0] = True
    observations = rng.integers(0, draw(st.sampled_from([1, 10, 10**6])), size=k).astype(float)
    return scale * rng.normal(size=(n, k)), allowed, observations, list("abcdef"[:k])


@pytest.mark.parametrize("name", NAMES)
@given(situation=situations())
@settings(max_examples=60, deadline=None)
def test_rows_are_distributions_over_the_allowed_arms(name: str, situation: tuple) -> None:
    """Rows sum to one, nothing is negative, and what is not allowed has probability zero."""
    probabilities = chooser(name).probabilities(*situation)
    assert probabilities.shape == situation[0].shape
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    assert (probabilities >= 0).all()
    assert (probabilities[~situation[1]] == 0).all()


@pytest.mark.parametrize("name", EXPLORING)
@given(situation=situations())
@settings(max_examples=60, deadline=None)
def test_every_allowed_arm_may_be_tried(name: str, situation: tuple) -> None:
    """A rule that explores gives each allowed arm at least its part of the floor."""
    _, allowed, _, _ = situation
    probabilities = chooser(name).probabilities(*situation)
    least = np.broadcast_to(0.009 / allowed.sum(axis=1, keepdims=True), allowed.shape)
    assert (probabilities[allowed] >= least[allowed]).all()


@pytest.mark.parametrize("name", NAMES)
@given(situation=situations())
@settings(max_examples=30, deadline=None)
def test_a_query_is_decided_alike_alone_and_in_a_batch(name: str, situation: tuple) -> None:
    """The row of a query does not depend on the other queries of its batch."""
    utilities, allowed, observations, arms = situation
    together = chooser(name).probabilities(*situation)
    for row in range(len(utilities)):
        one = slice(row, row + 1)
        alone = chooser(name).probabilities(utilities[one], allowed[one], observations, arms)
        assert np.allclose(alone[0], together[row], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are_and_rules_pickle(name: str) -> None:
    """A rule keeps no state: inputs unchanged, same answer again and after pickling."""
    rule: Chooser = chooser(name)
    given_ = (np.array([[0.4, 0.6]]), np.array([[True, True]]), np.array([9.0, 9.0]), ["a", "b"])
    before = [np.copy(item) for item in given_]
    first = rule.probabilities(*given_)
    twin = pickle.loads(pickle.dumps(rule))  # noqa: S301 - our own bytes
    assert all(np.array_equal(a, b) for a, b in zip(before, given_, strict=True))
    assert np.array_equal(first, rule.probabilities(*given_))
    assert np.array_equal(first, twin.probabilities(*given_))
    assert twin.name == rule.name == name


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_decided_is_refused(name: str) -> None:
    """No allowed arm, a utility that is not finite, and other shapes are errors, not choices."""
    rule = chooser(name)
    yes, no = np.array([[True, True]]), np.array([[False, False]])
    fine, counts, arms = np.array([[0.1, 0.2]]), np.zeros(2), ["a", "b"]
    with pytest.raises(ValueError, match="query 0 of the batch allows no arm"):
        rule.probabilities(fine, no, counts, arms)
    with pytest.raises(ValueError, match="finite"):
        rule.probabilities(np.array([[np.nan, 0.2]]), yes, counts, arms)
    with pytest.raises(ValueError, match="shape"):
        rule.probabilities(fine, yes[:, :1], counts, arms)
    with pytest.raises(ValueError, match="observations"):
        rule.probabilities(fine, yes, np.zeros(3), arms)


@pytest.mark.parametrize("name", NAMES)
def test_utilities_of_excluded_arms_do_not_matter(name: str) -> None:
    """NaN where an arm is not allowed changes nothing."""
    masked = np.array([[True, False]])
    probabilities = chooser(name).probabilities(
        np.array([[0.3, np.nan]]), masked, np.array([9.0, 9.0]), ["a", "b"]
    )
    assert probabilities.tolist() == [[1.0, 0.0]]


def test_draws_follow_the_probabilities() -> None:
    """Arms are drawn as often as their probabilities say, and never at probability zero."""
    rows = np.tile([0.0, 0.7, 0.3, 0.0], (20_000, 1))
    drawn = np.bincount(sample(rows, np.random.default_rng(1)), minlength=4) / 20_000
    assert drawn[[0, 3]].tolist() == [0.0, 0.0]
    assert abs(drawn[1] - 0.7) < 0.02
