"""What the length of a prompt says of a call's cost, and how sure a mean cost is."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from metallm_stream.policy import CHARACTERS, CostCurve, Usage, usage_of_call


def usage(lengths: NDArray[np.float64], costs: NDArray[np.float64]) -> NDArray[np.float64]:
    """One arm's calls with prompts of so many thousand characters."""
    return np.sum(
        [
            usage_of_call(cost_usd=cost, prompt_characters=round(length * CHARACTERS))
            for length, cost in zip(lengths, costs, strict=True)
        ],
        axis=0,
    )


def lengths(n: int = 400, seed: int = 1) -> NDArray[np.float64]:
    """Prompts as they come: many short ones and a few very long."""
    return np.random.default_rng(seed).lognormal(0.0, 0.8, n)


def test_nothing_known_says_nothing_of_length() -> None:
    """Neither no calls nor calls whose prompts or costs are not known."""
    calls = np.stack([usage_of_call(), usage_of_call(cost_usd=2.0)])
    for known in (np.zeros((2, len(Usage))), calls):
        curve = CostCurve.of(known)
        assert (curve.elasticity, curve.length) == (0.0, None)
        assert curve.at_mean_length(np.array([1.0, np.nan])).tolist() == [1.0, 1.0]
        assert np.isnan(curve.own_lengths(known)).all()
        assert curve.of_queries(np.array([0.0, 9.0])).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("fixed", "slope", "expected"), [(0, 1, 1.0), (1, 1, 0.5), (1, 0, 0.0)])
def test_elasticity_is_the_share_that_grows_with_the_prompt(
    fixed: float, slope: float, expected: float
) -> None:
    """1 where cost is proportional to length, 0 where it does not depend on it."""
    at = lengths() / lengths().mean()
    curve = CostCurve.of(
        np.stack([usage(at, fixed + slope * at), usage(at, 7 * (fixed + at * slope))])
    )
    assert curve.elasticity == pytest.approx(expected, abs=0.02)
    assert curve.variation < 0.02


def test_an_arm_that_was_asked_long_questions_is_not_taken_for_dear() -> None:
    """Two arms of one price, of which one had the long half of the prompts."""
    at = np.sort(lengths())
    parts = at[:200], at[200:]
    curve = CostCurve.of(np.stack([usage(part, 0.01 * part) for part in parts]))
    means = np.array([0.01 * part.mean() for part in parts])
    even = means * curve.at_mean_length(np.array([part.mean() for part in parts]))
    assert means[1] > 3 * means[0]
    assert even[0] == pytest.approx(even[1], rel=0.1)
    assert curve.length == pytest.approx(at.mean(), rel=1e-3)


def test_one_odd_prompt_does_not_make_an_arm_dear_or_cheap() -> None:
    """Nor do calls of which the length is not known, whatever the one known was."""
    at = lengths()
    usual = usage(at, 0.001 + 0.01 * at)
    for odd in (0.01, 50.0):
        one = usage(np.array([odd]), np.array([0.001 + 0.01 * odd]))
        older = np.sum([usage_of_call(cost_usd=0.02) for _ in range(200)], axis=0)
        arms = np.stack([usual, one + older])
        curve = CostCurve.of(arms)
        factors = curve.at_mean_length(curve.own_lengths(arms))
        assert factors == pytest.approx([1.0, 1.0], abs=0.25)


def test_an_arm_that_only_ever_had_short_prompts_is_brought_to_the_mean_by_the_common_curve() -> (
    None
):
    """A fixed part of the cost is not multiplied by how short its prompts were."""
    at = lengths()
    arms = np.stack([usage(at, 0.01 + 0.01 * at), usage(np.full(400, 0.01), np.full(400, 0.0101))])
    curve = CostCurve.of(arms)
    [_, short] = curve.at_mean_length(curve.own_lengths(arms))
    assert 0.0101 * short == pytest.approx(0.01 + 0.01 * at.mean(), rel=0.35)


def test_expected_costs_stay_positive_and_average_to_the_mean() -> None:
    """For no prompt at all and for one a thousand times as long; weighed ones lie in between."""
    at = lengths()
    curve = CostCurve.of(usage(at, 0.2 * at)[None])
    factors = curve.of_queries(np.array([0.0, at.mean(), 1_000 * at.mean()]))
    assert (factors > 0).all()
    assert factors[1] == pytest.approx(1.0, abs=1e-3)
    weighed = curve.weighed(factors)
    assert 0.4 < weighed[0] < 1.0 < weighed[2] < factors[2]


def test_variation_is_what_length_leaves_unexplained() -> None:
    """Here of answers' costs with a standard deviation of a third of the mean cost."""
    at = lengths()
    answers = np.random.default_rng(2).exponential(0.5 * at.mean(), len(at))
    curve = CostCurve.of(usage(at, at + answers)[None])
    assert curve.elasticity == pytest.approx(2 / 3, abs=0.05)
    assert curve.variation == pytest.approx(1 / 9, abs=0.03)


def test_a_mean_cost_is_the_surer_the_more_calls_tell_it() -> None:
    """And as uncertain as it is weighed: nothing where cost does not count."""
    curve = CostCurve()
    few, many = curve.variance(np.array([[0.5, 0.5]]), np.array([1.0, 99.5]))[0]
    assert few == pytest.approx(0.3 * 0.25 / 1.5)
    assert many == pytest.approx(0.3 * 0.25 / 100)
    assert curve.variance(np.zeros((1, 2)), np.zeros(2)).tolist() == [[0.0, 0.0]]


def test_calls_taken_out_again_leave_nothing() -> None:
    """Round-off of withdrawn calls is no evidence."""
    at = lengths(50)
    left = usage(at, 0.1 * at) - usage(at[::-1], 0.1 * at[::-1])
    curve = CostCurve.of(left[None])
    assert (curve.elasticity, curve.length) == (0.0, None)
    assert curve.variation == pytest.approx(0.3)
