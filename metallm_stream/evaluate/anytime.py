"""A doubly robust interval that holds at every length of the log at once, without a limit theorem.

Invariant: with probability 95 % the interval holds the mean value of the target over the decisions
so far, at all times together: look as often as you like, and stop when you like. It asks for
bounded rewards and true propensities, and for nothing else: no large n, no bound on the weights,
no settled policy, no steady queries. "At all times" is of a log that grows at its end: leave out
decisions whose labels may still come.
"""

from __future__ import annotations

import math

import numpy as np

from metallm_stream.evaluate.bandit_log import BanditLog, Floats
from metallm_stream.evaluate.estimate import Estimate

ALPHA = 0.05
# How far below 0 a score may go; more lets predictions count at rarer choices, for a wider start.
TRUNCATION = 4.0
# The rates that are mixed: the best one for n decisions is about n^(-1/2).
RATES: Floats = 0.95 * 1.5 ** -np.arange(24.0)
NEWTON_STEPS = 10
# What each rate pays for the spread (Fan et al. 2015): −log(1 − λ) − λ.
COSTS: Floats = -np.log1p(-RATES) - RATES


class LowerBound:
    """A lower confidence sequence for the running mean of scores of at least `-TRUNCATION`.

    With `ξ = score/(k+1)` and ξ̂ a prediction of it from the past, at most `1/(k+1)`,
    `exp(λ·Σ(ξ − E ξ) − ψ(λ)·Σ(ξ − ξ̂)²)` is a supermartingale for every λ in [0, 1), and so is the
    mean of several. It exceeds `1/α` with probability α at most (Ville); solved for the sum of the
    means, that bounds it.

    References
    ----------
    Fan, Grama & Liu 2015, "Exponential inequalities for martingales with applications", lemma 4.1;
    Howard et al. 2021, "Time-uniform, nonparametric, nonasymptotic confidence sequences", theorem 4
    and section 3.2 (mixtures).

    """

    def __init__(self) -> None:
        self.n = 0
        self._sum = 0.0
        self._spread = 0.0

    @property
    def mean(self) -> float:
        """Of the scores."""
        return self._sum * (TRUNCATION + 1) / self.n

    def add(self, scores: Floats) -> None:
        """Take in the next scores, `(n,)`."""
        if not len(scores):
            return
        scaled = scores / (TRUNCATION + 1)
        before = self._sum + np.concatenate([[0.0], np.cumsum(scaled)[:-1]])
        top = 1 / (TRUNCATION + 1)
        predicted = (top / 2 + before) / (1 + self.n + np.arange(len(scores)))
        predicted = np.clip(predicted, 0, top)
        self.n += len(scores)
        self._sum += float(scaled.sum())
        self._spread += float(((scaled - predicted) ** 2).sum())

    def bound(self, alpha: float) -> float:
        """The lower end, of which 1 − `alpha` of all logs never have one above the truth."""
        return self.mean - self._radius(alpha) * (TRUNCATION + 1) / self.n

    def _radius(self, alpha: float) -> float:
        """The deviation of the sum at which the mixture reaches `1/alpha`.

        By Newton's method on a convex function, from above, so that each step is a bound already.
        """
        wanted = math.log(len(RATES) / alpha)
        spread = COSTS * self._spread
        radius = float(((wanted + spread) / RATES).min())
        for _ in range(NEWTON_STEPS):
            exponents = RATES * radius - spread
            parts = np.exp(exponents - exponents.max())
            excess = float(exponents.max() + np.log(parts.sum())) - wanted
            radius -= max(excess, 0.0) / float(parts @ RATES / parts.sum())
        return radius


class AnytimeDoublyRobust:
    """Lower and upper confidence sequences, of 2.5 % each, from truncated doubly robust scores.

    For rewards in [0, 1], the score `w·(r − q̃(chosen)) + Σ_k π(k)·q̃(k)` with `q̃(k) = min(q̂(k),
    TRUNCATION/w(k))` is unbiased and never below `-TRUNCATION`, however large a weight; the upper
    end comes from `1 − r`. Other ranges are scaled.

    Parameters
    ----------
    low, high
        Of the rewards. Should one lie outside there is no interval.

    References
    ----------
    Waudby-Smith et al. 2022, "Anytime-valid off-policy inference for contextual bandits", section 2
    (doubly robust pseudo-outcomes with predictable truncation), and its time-varying values.

    """

    name = "dr_anytime"

    def __init__(self, low: float, high: float) -> None:
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise ValueError(f"rewards need a range of finite ends, got {low} to {high}")
        self._low, self._high = low, high
        self._lower, self._upper = LowerBound(), LowerBound()
        self._outside: float | None = None

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        width = self._high - self._low
        reward = (log.reward - self._low) / width
        outside = (reward < 0) | (reward > 1)
        if outside.any():
            self._outside = float(log.reward[outside][0])
        predicted = np.clip((log.predicted - self._low) / width, 0, 1)
        self._lower.add(_truncated(log, reward, predicted))
        self._upper.add(_truncated(log, 1 - reward, 1 - predicted))

    def estimate(self) -> Estimate:
        """The mean of the two scores, and the bounds that they give, in which it is kept.

        The truth is in the interval, so what lies outside it is no better guess than its end. Ends
        that have crossed, as those of one log in twenty may, leave no interval.
        """
        if self._lower.n == 0:
            return Estimate(self.name, note="no decisions")
        if self._outside is not None:
            return Estimate(
                self.name,
                note=f"a reward of {self._outside:g} lies outside {self._low:g} to {self._high:g}: "
                "take a metric or a scale that keeps all within",
            )
        low = max(self._lower.bound(ALPHA / 2), 0.0)
        high = min(1 - self._upper.bound(ALPHA / 2), 1.0)
        if low > high:
            return Estimate(
                self.name,
                note="its ends have crossed: by wrong propensities, or by chance, in 1 of 20 logs",
            )
        middle = min(max((self._lower.mean + 1 - self._upper.mean) / 2, low), high)
        value, low, high = (
            self._low + part * (self._high - self._low) for part in (middle, low, high)
        )
        return Estimate(self.name, value, low, high)


def _truncated(log: BanditLog, reward: Floats, predicted: Floats) -> Floats:
    """Scores of at least `-TRUNCATION`, `(n,)`, from rewards and predictions in [0, 1]."""
    aimed = log.target > 0
    most = np.divide(
        TRUNCATION * log.probabilities,
        log.target,
        out=np.full_like(log.target, np.inf),
        where=aimed,
    )
    trusted = np.minimum(predicted, most)
    direct: Floats = (log.target * trusted).sum(axis=1)
    return log.weights * (reward - log.of_chosen(trusted)) + direct
