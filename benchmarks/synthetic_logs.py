"""Logs of known truth, made by logging policies that stay or learn, to check estimators on.

Invariant: an arm is drawn with exactly the propensity that is logged, and predictions come from
earlier outcomes alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from metallm_stream.evaluate.bandit_log import BanditLog, Floats
from metallm_stream.evaluate.off_policy import PolicyEvaluation

FLOOR = 0.15
SAMPLES = 16
ALL_ROWS = slice(None)


@dataclass(frozen=True, eq=False)
class State:
    """What the logging policies have learned by the t-th decision, for R logs at once.

    `tried` and `won` are each arm's decisions and their successes in the situation at hand,
    `(R, K)`; `t` counts from 0.
    """

    t: int
    tried: Floats
    won: Floats

    @property
    def mean(self) -> Floats:
        """Of the successes, with one imagined half success an arm, `(R, K)`."""
        mean: Floats = (self.won + 0.5) / (self.tried + 1)
        return mean


Logger = Callable[[State, np.random.Generator], Floats]


def static(state: State, rng: np.random.Generator) -> Floats:
    """Always the same probabilities, which fall with the arm's number, `(R, K)`."""
    del rng
    falling = np.zeros(state.tried.shape) + 0.5 ** np.arange(state.tried.shape[1])
    shares: Floats = falling / falling.sum(axis=1, keepdims=True)
    return shares


def epsilon_rate(decided: ArrayLike) -> Floats:
    """What is left to chance in the `decided`-th decision."""
    rate: Floats = np.maximum(FLOOR, np.asarray(decided) ** -0.3)
    return rate


def epsilon_greedy(state: State, rng: np.random.Generator) -> Floats:
    """The best arm so far, but any arm with a probability that falls to `FLOOR`, `(R, K)`."""
    del rng
    epsilon = epsilon_rate(state.t + 1)
    best = state.mean == state.mean.max(axis=1, keepdims=True)
    greedy = best / best.sum(axis=1, keepdims=True)
    mixed: Floats = (1 - epsilon) * greedy + epsilon / state.tried.shape[1]
    return mixed


def thompson(state: State, rng: np.random.Generator) -> Floats:
    """The best arm of one of `SAMPLES` samples, but any arm with probability `FLOOR`, `(R, K)`.

    Samples are from the normal approximation of each arm's posterior.
    """
    noise = rng.standard_normal((SAMPLES, *state.tried.shape), dtype=np.float32)
    draws = state.mean + np.sqrt(state.mean * (1 - state.mean) / (state.tried + 1)) * noise
    arms = state.tried.shape[1]
    best = np.eye(arms)[draws.argmax(axis=2)].mean(axis=0)
    mixed: Floats = (1 - FLOOR) * best + FLOOR / arms
    return mixed


LOGGERS: dict[str, Logger] = {
    "static": static,
    "epsilon-greedy": epsilon_greedy,
    "thompson": thompson,
}


@dataclass(frozen=True, eq=False)
class Aim:
    """A target, `(R, n, K)`, and its true mean value over the first 1 to n decisions, `(R, n)`.

    For a target that changes, the value is that in the situations that came.
    """

    target: Floats
    truth: Floats


@dataclass(frozen=True, eq=False)
class Logs:
    """R logs of n decisions among K arms, with the truth.

    Attributes
    ----------
    success
        The probability of a success, `(S, K)`, in each of S situations, which are equally likely.
    situation, chosen, reward
        `(R, n)`.
    probabilities, predicted
        `(R, n, K)`.

    """

    success: Floats
    situation: NDArray[np.int64]
    chosen: NDArray[np.int64]
    reward: Floats
    probabilities: Floats
    predicted: Floats

    def aims(self) -> dict[str, Aim]:
        """Always each arm, and two that follow the predictions as they change.

        The greedy policy, and one that learns slowly: greedy but for an `epsilon_rate` that falls.
        """
        best = self.predicted == self.predicted.max(axis=2, keepdims=True)
        greedy: Floats = best / best.sum(axis=2, keepdims=True)
        decided = np.arange(1, greedy.shape[1] + 1)
        rate = epsilon_rate(decided)[:, None]
        learning: Floats = (1 - rate) * greedy + rate / greedy.shape[2]
        aims = {}
        for name, target in (("greedy", greedy), ("learning", learning)):
            here = (target * self.success[self.situation]).sum(axis=2)
            aims[name] = Aim(target, np.cumsum(here, axis=1) / decided)
        for arm, one in enumerate(np.eye(self.success.shape[1])):
            target = np.broadcast_to(one, self.probabilities.shape)
            truth = np.full(self.reward.shape, self.success[:, arm].mean())
            aims[f"always:{arm}"] = Aim(target, truth)
        return aims

    def log(self, r: int, aim: Aim, rows: slice = ALL_ROWS) -> BanditLog:
        """The r-th log or some of its rows, with a target."""
        chosen, probabilities = self.chosen[r, rows], self.probabilities[r, rows]
        return BanditLog(
            chosen=chosen,
            propensity=probabilities[np.arange(len(chosen)), chosen],
            reward=self.reward[r, rows],
            probabilities=probabilities,
            predicted=self.predicted[r, rows],
            target=aim.target[r, rows],
        )


def simulate(
    success: Floats, logger: Logger, *, decisions: int, logs: int, rng: np.random.Generator
) -> Logs:
    """Let a logging policy decide and learn, in many independent logs at once."""
    situations, arms = success.shape
    situation = rng.integers(situations, size=(logs, decisions))
    chosen = np.zeros((logs, decisions), dtype=np.int64)
    reward = np.zeros((logs, decisions))
    probabilities, predicted = np.zeros((2, logs, decisions, arms))
    tried, won = np.zeros((2, logs, situations, arms))
    every = np.arange(logs)
    for t in range(decisions):
        here = situation[:, t]
        state = State(t, tried[every, here], won[every, here])
        given = logger(state, rng)
        ends = np.cumsum(given, axis=1)
        arm = (rng.random((logs, 1)) * ends[:, -1:] >= ends).sum(axis=1)
        got = rng.random(logs) < success[here, arm]
        chosen[:, t], reward[:, t] = arm, got
        probabilities[:, t], predicted[:, t] = given, state.mean
        tried[every, here, arm] += 1
        won[every, here, arm] += got
    return Logs(success, situation, chosen, reward, probabilities, predicted)


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often an estimator's intervals hold the truth, and how it errs, over many logs.

    `width` is the median interval's, `bias` the mean error of the estimate.
    """

    coverage: float
    width: float
    bias: float


def coverage(logs: Logs, aim: Aim) -> tuple[dict[str, Coverage], float]:
    """By estimator, at the end of each log; and the median number of effective decisions."""
    found: dict[str, list[tuple[bool, float, float]]] = {}
    effective = []
    for r in range(len(logs.reward)):
        evaluation = PolicyEvaluation("target", (0.0, 1.0))
        evaluation.add(logs.log(r, aim))
        value, truth = evaluation.value(), float(aim.truth[r, -1])
        effective.append(value.effective_decisions)
        for said in value.estimates:
            assert said.low is not None
            assert said.high is not None
            assert said.value is not None
            row = (said.low <= truth <= said.high, said.high - said.low, said.value - truth)
            found.setdefault(said.estimator, []).append(row)
    covered = {}
    for name, rows in found.items():
        holds, width, error = np.array(rows, dtype=np.float64).T
        covered[name] = Coverage(float(holds.mean()), float(np.median(width)), float(error.mean()))
    return covered, float(np.median(effective))
