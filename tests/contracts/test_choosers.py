"""One contract for all rules of choice in the registry."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metallm_stream.policy import CHOOSERS, Beliefs, Chooser, chooser, sample

NAMES = [f"{name}:b" if name == "fixed" else name for name in CHOOSERS]
EXPLORING = [name for name in NAMES if not name.startswith("fixed")]
FIELDS = ("utility", "uncertainty", "observations")
Situation = tuple[Beliefs, np.ndarray]


def known(utility: list[list[float]], observations: float = 9.0, variance: float = 0.2) -> Beliefs:
    """Beliefs about arms a, b, c … that are known like after so many events."""
    rows = np.array(utility, dtype=float)
    n, k = rows.shape
    arms = tuple("abcdefghij"[:k])
    uncertainty = np.full((n, k), 1 / max(observations, 1.0))
    return Beliefs(arms, rows, uncertainty, np.full(k, observations), variance)


@st.composite
def situations(draw: st.DrawFn) -> Situation:
    """Beliefs about 1 to 50 arms, from none to extreme, and allowed arms, at least one a row."""
    n, k = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 3, 6, 50]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.0, 1e-9, 1.0, 1e6]))
    allowed = rng.random((n, k)) < draw(st.sampled_from([0.3, 1.0]))
    allowed[~allowed.any(axis=1), 0] = True
    beliefs = Beliefs(
        arms=("a", "b", *(f"arm {column}" for column in range(2, k)))[:k],
        utility=scale * rng.normal(size=(n, k)),
        uncertainty=10.0 ** rng.uniform(*draw(st.sampled_from([(-9, 3), (-3, 0)])), size=(n, k)),
        observations=rng.integers(0, draw(st.sampled_from([1, 10, 10**6])), size=k).astype(float),
        noise_variance=draw(st.sampled_from([1e-6, 0.1, 1.0])),
    )
    return beliefs, allowed


@pytest.mark.parametrize("name", NAMES)
@given(situation=situations())
@settings(max_examples=60)
def test_rows_are_distributions_over_the_allowed_arms(name: str, situation: Situation) -> None:
    """Rows sum to one, nothing is negative, and what is not allowed has probability zero."""
    beliefs, allowed = situation
    probabilities = chooser(name).probabilities(beliefs, allowed)
    assert probabilities.shape == allowed.shape
    assert np.allclose(probabilities.sum(axis=1), 1, atol=1e-9)
    assert (probabilities >= 0).all()
    assert (probabilities[~allowed] == 0).all()


@pytest.mark.parametrize("name", EXPLORING)
@given(situation=situations())
@settings(max_examples=60)
def test_every_allowed_arm_may_be_tried(name: str, situation: Situation) -> None:
    """A rule that explores gives each allowed arm at least its part of the floor."""
    beliefs, allowed = situation
    probabilities = chooser(name).probabilities(beliefs, allowed)
    least = np.broadcast_to(0.0049 / allowed.sum(axis=1, keepdims=True), allowed.shape)
    assert (probabilities[allowed] >= least[allowed]).all()


@pytest.mark.parametrize("name", NAMES)
@given(situation=situations())
@settings(max_examples=30)
def test_a_query_is_decided_alike_alone_and_in_a_batch(name: str, situation: Situation) -> None:
    """The row of a query does not depend on the other queries of its batch."""
    beliefs, allowed = situation
    together = chooser(name).probabilities(beliefs, allowed)
    for row in range(len(allowed)):
        one = slice(row, row + 1)
        alone = chooser(name).probabilities(beliefs[one], allowed[one])
        assert np.allclose(alone[0], together[row], atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@given(situation=situations())
@settings(max_examples=30)
def test_what_is_believed_of_excluded_arms_does_not_matter(name: str, situation: Situation) -> None:
    """NaN, 0 and other numbers where an arm is not allowed change nothing."""
    beliefs, allowed = situation
    expected = chooser(name).probabilities(beliefs, allowed)
    for other in (np.nan, 0.0, -1.0):
        changed = replace(
            beliefs,
            utility=np.where(allowed, beliefs.utility, other),
            uncertainty=np.where(allowed, beliefs.uncertainty, other),
        )
        assert np.array_equal(chooser(name).probabilities(changed, allowed), expected)


@pytest.mark.parametrize("name", NAMES)
@given(situation=situations())
@settings(max_examples=30)
def test_no_mask_is_a_mask_that_allows_all(name: str, situation: Situation) -> None:
    """To the last digit: a decision is the same whatever the others of its batch exclude."""
    beliefs, allowed = situation
    unmasked = chooser(name).probabilities(beliefs, None)
    masked = chooser(name).probabilities(beliefs, np.ones_like(allowed))
    assert np.array_equal(unmasked, masked)


# Inverse-gap weighting gives one of the best arms what the arms behind leave.
@pytest.mark.parametrize("name", [name for name in EXPLORING if name != "ridge-igw"])
@pytest.mark.parametrize("k", [1, 2, 7, 50])
def test_arms_that_cannot_be_told_apart_share_evenly(name: str, k: int) -> None:
    """Also where they are sure, and where further arms are excluded or clearly worse."""
    arms = tuple(map(str, range(k + 2)))
    utility = np.append(np.full(k, 0.7), [0.0, 0.9])[None]
    allowed = np.append(np.ones(k + 1, bool), False)[None]
    for uncertainty in (1e-9, 1e-4):
        beliefs = Beliefs(arms, utility, np.full((1, k + 2), uncertainty), np.full(k + 2, 1e4), 0.2)
        shares = chooser(name).probabilities(beliefs, allowed)[0]
        assert np.allclose(shares[:k], shares[0], atol=1e-9)
        assert shares[k] <= shares[0] + 1e-12
        assert shares[k + 1] == 0


@pytest.mark.parametrize("name", NAMES)
def test_one_arm_alone_is_certain(name: str) -> None:
    """Whatever is believed of it."""
    for utility in (-1e6, 0.0, 1e6):
        shares = chooser(name).probabilities(known([[utility]]), np.ones((1, 1), bool))
        assert shares.tolist() == [[pytest.approx(1.0, abs=1e-12)]]


@pytest.mark.parametrize("name", NAMES)
def test_inputs_stay_as_they_are_and_rules_pickle(name: str) -> None:
    """A rule keeps no state: inputs unchanged, same answer again and after pickling."""
    rule: Chooser = chooser(name)
    beliefs, allowed = known([[0.4, 0.6]]), np.array([[True, True]])
    before = [np.copy(getattr(beliefs, field)) for field in FIELDS]
    first = rule.probabilities(beliefs, allowed)
    twin = pickle.loads(pickle.dumps(rule))  # noqa: S301 - our own bytes
    after = [getattr(beliefs, field) for field in FIELDS]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert allowed.all()
    assert np.array_equal(first, rule.probabilities(beliefs, allowed))
    assert np.array_equal(first, twin.probabilities(beliefs, allowed))
    assert twin.name == rule.name == name


@pytest.mark.parametrize("name", NAMES)
def test_what_cannot_be_decided_is_refused(name: str) -> None:
    """No allowed arm, numbers that are not finite, and other shapes are errors, not choices."""
    rule = chooser(name)
    yes, no = np.array([[True, True]]), np.array([[False, False]])
    fine = known([[0.1, 0.2]])
    for beliefs, allowed, message in (
        (fine, no, "query 0 of the batch allows no arm"),
        (known([[np.nan, 0.2]]), yes, "finite"),
        (known([[np.inf, 0.2]]), yes, "finite"),
        (fine, yes[:, :1], "shape"),
        (replace(fine, uncertainty=np.ones((2, 2))), yes, "shape"),
        (replace(fine, utility=np.ones(2)), yes, "shape"),
        (replace(fine, observations=np.zeros(3)), yes, "observations"),
        (replace(fine, uncertainty=np.zeros((1, 2))), yes, "above 0"),
        (replace(fine, uncertainty=np.full((1, 2), np.nan)), yes, "above 0"),
        (replace(fine, uncertainty=np.full((1, 2), np.inf)), yes, "finite"),
        (replace(fine, noise_variance=0.0), yes, "above 0"),
        (replace(fine, noise_variance=np.nan), yes, "above 0"),
        (replace(fine, noise_variance=np.inf), yes, "finite"),
    ):
        with pytest.raises(ValueError, match=message):
            rule.probabilities(beliefs, allowed)


def test_draws_follow_the_probabilities() -> None:
    """Arms are drawn as often as their probabilities say, and never at probability zero."""
    rows = np.tile([0.0, 0.7, 0.3, 0.0], (20_000, 1))
    drawn = np.bincount(sample(rows, np.random.default_rng(1)), minlength=4) / 20_000
    assert drawn[[0, 3]].tolist() == [0.0, 0.0]
    assert abs(drawn[1] - 0.7) < 0.02
