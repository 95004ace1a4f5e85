"""Forgetting and drift where time is counted in events."""

from __future__ import annotations

import numpy as np
import pytest

from metallm_stream.policy.event_memory import FACTOR, EventMemory
from metallm_stream.policy.multi_task_ridge import MultiTaskRidge

ARMS = ("fast", "large", "small")


def stream(
    n: int, drop: float, *, seed: int = 12
) -> tuple[list[str], np.ndarray, np.ndarray, np.ndarray]:
    """Events of three arms: names, contexts, rewards; `large` is worse by `drop` from the middle.

    The last item are the expected rewards.
    """
    rng = np.random.default_rng(seed)
    arms = [ARMS[column] for column in rng.integers(3, size=n)]
    contexts = rng.normal(size=(n, 4)) / 2
    means = np.array([{"fast": 0.5, "large": 0.8, "small": 0.6}[arm] for arm in arms])
    means += 0.1 * contexts[:, 0]
    means -= drop * ((np.array(arms) == "large") & (np.arange(n) >= n // 2))
    return arms, contexts, means + 0.15 * rng.normal(size=n), means


def taught(policy: MultiTaskRidge, events: tuple, batch: int = 20) -> MultiTaskRidge:
    """The policy after the events, batch by batch."""
    arms, contexts, rewards, _ = events
    for start in range(0, len(arms), batch):
        part = slice(start, start + batch)
        policy.update_many(arms[part], contexts[part], rewards[part])
    return policy


def test_without_half_life_and_detector_every_event_counts_one() -> None:
    """Clocks stand still, and residuals are not looked at."""
    memory = EventMemory()
    assert memory.clock("a", 1e9) == 0.0
    assert memory.log2_scale("a", np.arange(5)).tolist() == [0.0] * 5
    assert not memory.observe("a", list(range(500)), [0.0] * 250 + [-1.0] * 250)
    assert memory.shifts == []


def test_a_half_life_in_events_halves_weights() -> None:
    """An event counts half of one that came so many events later, of whichever arm."""
    memory = EventMemory(half_life=30.0)
    scale = memory.log2_scale("a", np.array([0, 30, 75]))
    assert scale.tolist() == [0.0, 1.0, 2.5]
    assert memory.clock("b", 75) == 2.5
    policy = MultiTaskRidge(half_life=30.0, refresh_growth=1e-9)
    contexts = np.random.default_rng(3).normal(size=(61, 2))
    policy.update_many(["a"], contexts[:1], [1.0])
    for last in (30, 60):
        policy.update_many(["b"] * 30, contexts[last - 29 : last + 1], [0.5] * 30)
        assert policy._fit is not None
        halved = policy.sums.as_of({"a": last / 30.0, "b": last / 30.0})
        assert halved.observations("a") == pytest.approx(0.5 ** (last / 30))
        ages = np.arange(last)
        assert halved.observations("b") == pytest.approx(np.sum(0.5 ** (ages / 30)))
        # The fit in force reads the clock of the next event.
        assert policy._fit.observations[0] == pytest.approx(0.5 ** ((last + 1) / 30))


def test_with_a_half_life_predictions_follow_a_change() -> None:
    """The mean of the old and new reward moves to the new one as the old events fade."""
    events = stream(2_000, 0.4)
    remembering, forgetting = (taught(MultiTaskRidge(half_life=h), events) for h in (None, 150.0))
    queries = np.zeros((1, 4))
    slow, quick = (
        each._beliefs(queries, ["large"]).utility[0, 0] for each in (remembering, forgetting)
    )
    assert slow == pytest.approx(0.6, abs=0.04)
    assert quick == pytest.approx(0.4, abs=0.06)


@pytest.mark.parametrize("detector", ["adwin", "page-hinkley"])
def test_an_arm_that_drops_shifts_once_and_predictions_follow(detector: str) -> None:
    """Its older events count little from then on, and age; the other arms keep theirs."""
    policy = taught(MultiTaskRidge(drift=detector), stream(4_000, 0.4))
    assert [(shift.arm, shift.direction) for _, shift in policy.memory.shifts] == [
        ("large", "down")
    ]
    number, shift = policy.memory.shifts[0]
    assert 2_000 <= number < 2_400
    assert shift.mean_after < shift.mean_before - 0.2
    expected = policy._beliefs(np.zeros((1, 4)), ARMS).utility[0]
    assert expected == pytest.approx([0.5, 0.4, 0.6], abs=0.04)
    age = np.array([0, 100, 900])
    scale = policy.memory.log2_scale("large", number + 1 + age)
    assert scale == pytest.approx(-np.log2(FACTOR) + 2 * np.log2([1, 2, 10]))
    assert policy.memory.log2_scale("large", np.arange(number + 1)).tolist() == [0.0] * (number + 1)
    assert [policy.memory.clock(arm, 4_000) for arm in ("fast", "small")] == [0.0, 0.0]


@pytest.mark.parametrize("detector", ["adwin", "page-hinkley"])
def test_without_drift_a_detector_changes_nothing(detector: str) -> None:
    """To the bit: sums, fit and choices are those of a policy that watches nothing."""
    events = stream(2_000, 0.0)
    watched = taught(MultiTaskRidge(drift=detector, seed=4), events)
    plain = taught(MultiTaskRidge(seed=4), events)
    assert watched.memory.shifts == []
    assert watched.sums.difference(plain.sums) == 0.0
    queries = events[1][:50]
    ours, theirs = (each.pull_many(queries, ARMS) for each in (watched, plain))
    assert np.array_equal(ours.probabilities, theirs.probabilities)
    assert np.array_equal(ours.columns, theirs.columns)


@pytest.mark.parametrize("seed", range(3))
def test_an_arm_that_recovers_is_found_again(seed: int) -> None:
    """Chosen one by one: uncertainty about it has grown back, so that it is tried again."""
    rng, policy = np.random.default_rng(100 + seed), MultiTaskRidge(drift="adwin", seed=seed)
    chosen = []
    for number in range(3_000):
        quality = (0.9, 0.7) if not 1_000 <= number < 2_000 else (0.5, 0.7)
        chosen.append(int(policy.pull_many([[1.0]], ["falls", "stays"]).columns[0]))
        reward = float(rng.random() < quality[chosen[-1]])
        policy.update_many([("falls", "stays")[chosen[-1]]], [[1.0]], [reward])
    falls = 1.0 - np.array(chosen)
    assert falls[800:1_000].mean() > 0.9
    assert falls[1_300:2_000].mean() < 0.2
    assert falls[2_400:].mean() > 0.8
    assert (policy.memory.shifts[0][1].arm, policy.memory.shifts[0][1].direction) == (
        "falls",
        "down",
    )


@pytest.mark.parametrize("half_life", [0.0, -5.0, np.inf, np.nan])
def test_refuses_half_lives_that_are_none(half_life: float) -> None:
    """A half-life is positive and finite; None is the way to have none."""
    with pytest.raises(ValueError, match="half_life must be positive and finite"):
        MultiTaskRidge(half_life=half_life)


def test_refuses_detectors_that_it_lacks() -> None:
    """With the names of those that there are."""
    with pytest.raises(ValueError, match="no drift detector 'kswin'; there are adwin"):
        MultiTaskRidge(drift="kswin")
