"""What must hold of every log, however it was made and cut."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from metallm_stream.evaluate import BanditLog, Estimate, PolicyEvaluation, PolicyValue

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(2, 400)


def random_log(seed: int, n: int, arms: int = 4) -> BanditLog:
    """Probabilities, predictions, rewards and target at random; some arms not allowed."""
    rng = np.random.default_rng(seed)
    allowed = rng.random((n, arms)) < 0.8
    allowed[np.arange(n), rng.integers(arms, size=n)] = True
    probabilities, target = (
        np.where(allowed, rng.gamma(0.7, size=(n, arms)) + 1e-3, 0.0) for _ in range(2)
    )
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    target /= target.sum(axis=1, keepdims=True)
    ends = np.cumsum(probabilities, axis=1)
    chosen = (rng.random((n, 1)) * ends[:, -1:] >= ends).sum(axis=1)
    return BanditLog(
        chosen=chosen,
        propensity=probabilities[np.arange(n), chosen],
        reward=rng.random(n),
        probabilities=probabilities,
        predicted=rng.random((n, arms)),
        target=target,
    )


def value(*pieces: BanditLog) -> PolicyValue:
    """What all pieces say together."""
    evaluation = PolicyEvaluation("target", (0.0, 1.0))
    for piece in pieces:
        evaluation.add(piece)
    return evaluation.value()


def columns(log: BanditLog, order: np.ndarray) -> BanditLog:
    """The same log with its arms listed in another order."""
    return replace(
        log,
        chosen=np.argsort(order)[log.chosen],
        probabilities=log.probabilities[:, order],
        predicted=log.predicted[:, order],
        target=log.target[:, order],
    )


def cut(log: BanditLog, rows: slice) -> BanditLog:
    """Some of the log's decisions."""
    return BanditLog(
        chosen=log.chosen[rows],
        propensity=log.propensity[rows],
        reward=log.reward[rows],
        probabilities=log.probabilities[rows],
        predicted=log.predicted[rows],
        target=log.target[rows],
    )


def numbers(found: PolicyValue) -> list[float]:
    """All figures, in order."""
    ends = [(one.value, one.low, one.high) for one in found.estimates]
    flat = [np.nan if number is None else number for row in ends for number in row]
    return [*flat, found.effective_decisions, found.largest_weight, found.unsupported]


@given(SEEDS, SIZES)
def test_the_order_of_arms_changes_nothing(seed: int, n: int) -> None:
    """Columns are names, not places."""
    log = random_log(seed, n)
    other = columns(log, np.random.default_rng(seed + 1).permutation(4))
    np.testing.assert_allclose(numbers(value(log)), numbers(value(other)), rtol=1e-9, atol=1e-9)


@given(SEEDS, SIZES, st.lists(st.integers(0, 400), max_size=4))
def test_cutting_the_log_changes_nothing(seed: int, n: int, places: list[int]) -> None:
    """Pieces of any size, empty ones included, add up to the whole."""
    log = random_log(seed, n)
    ends = [0, *sorted(min(place, n) for place in places), n]
    pieces = [cut(log, slice(a, b)) for a, b in itertools.pairwise(ends)]
    np.testing.assert_allclose(numbers(value(log)), numbers(value(*pieces)), rtol=1e-7, atol=1e-7)


@given(SEEDS, SIZES)
def test_an_exact_model_makes_the_doubly_robust_estimate_exact(seed: int, n: int) -> None:
    """Where rewards are as predicted, the estimate is the target's mean prediction."""
    log = random_log(seed, n)
    exact = replace(log, reward=log.of_chosen(log.predicted))
    (found,) = (one for one in value(exact).estimates if one.estimator == "dr")
    truth = (log.target * log.predicted).sum(axis=1)
    np.testing.assert_allclose(found.value, truth.mean(), rtol=1e-9)
    same = replace(exact, reward=np.full(n, 0.3), predicted=np.full((n, 4), 0.3))
    for one in value(same).estimates:
        if one.estimator in ("snips", "dr", "dr_weighted"):
            ends = np.array([one.low, one.value, one.high], dtype=np.float64)
            np.testing.assert_allclose(ends, 0.3, atol=1e-6)


@given(SEEDS, SIZES)
def test_the_logging_policy_is_worth_what_it_brought(seed: int, n: int) -> None:
    """Its own weights are 1, so ips and snips are the mean reward, and every decision counts."""
    log = random_log(seed, n)
    found = value(replace(log, target=log.probabilities))
    for one in found.estimates[:2]:
        np.testing.assert_allclose(one.value, log.reward.mean(), rtol=1e-9)
    np.testing.assert_allclose(found.effective_decisions, n, rtol=1e-9)


@given(SEEDS, SIZES)
def test_estimates_lie_in_their_intervals_and_snips_among_the_rewards(seed: int, n: int) -> None:
    """Intervals are about their estimates; a weighted mean is no larger than the largest."""
    log = random_log(seed, n)
    named = {one.estimator: one for one in value(log).estimates}
    for one in named.values():
        _assert_ordered(one)
    snips = named["snips"].value
    assert snips is None or log.reward.min() - 1e-9 <= snips <= log.reward.max() + 1e-9
    anytime = named["dr_anytime"]
    assert anytime.low is not None
    assert anytime.high is not None
    assert 0 <= anytime.low <= anytime.high <= 1


def _assert_ordered(one: Estimate) -> None:
    if one.low is not None and one.estimator != "dr_anytime":
        assert one.value is not None
        assert one.high is not None
        assert one.low <= one.value <= one.high
