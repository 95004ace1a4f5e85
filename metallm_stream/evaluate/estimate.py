"""What an estimator says, and what every estimator can do.

Invariant: estimators are fed a log piece by piece, in order, and keep sums alone, so that a log of
any length is evaluated in bounded memory; cutting it elsewhere changes nothing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, Self

from metallm_stream.evaluate.bandit_log import BanditLog, Floats

# The 97.5 % quantile of the normal distribution: intervals hold 95 %.
Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class Estimate:
    """A policy's value per decision, with a 95 % interval.

    Attributes
    ----------
    estimator
        `ips`, `snips`, `dr`, `dr_weighted` or `dr_anytime`.
    value
        None where the log says nothing of it.
    low, high
        None where there is no interval, as with a single decision.
    note
        Why a value or an interval is missing.

    """

    estimator: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    note: str | None = None

    @classmethod
    def normal(cls, estimator: str, value: float, standard_error: float) -> Self:
        """The interval of a mean that is normal in the limit (martingale central limit theorem)."""
        half = Z * standard_error
        return cls(estimator, value, value - half, value + half)


class Estimator(Protocol):
    """Takes in a log piece by piece, and says what it makes of all of it so far."""

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""

    def estimate(self) -> Estimate:
        """The value and its interval by all decisions so far."""


class Moments:
    """Count, mean and spread of numbers that come in pieces.

    References
    ----------
    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", eq. 2.1.

    >>> import numpy as np
    >>> moments = Moments()
    >>> moments.add(np.array([1.0, 2.0]))
    >>> moments.add(np.array([6.0]))
    >>> moments.mean, round(moments.standard_error, 6)
    (3.0, 1.527525)

    """

    def __init__(self) -> None:
        self.n = 0
        self.mean = 0.0
        self._spread = 0.0

    def add(self, values: Floats) -> None:
        """Take in more numbers."""
        if not len(values):
            return
        n, mean = len(values), float(values.mean())
        total, shift = self.n + n, mean - self.mean
        self._spread += float(((values - mean) ** 2).sum()) + shift**2 * self.n * n / total
        self.mean += shift * n / total
        self.n = total

    @property
    def standard_error(self) -> float:
        """Of the mean; needs at least two numbers."""
        return math.sqrt(self._spread / (self.n - 1) / self.n)

    def estimate(self, estimator: str) -> Estimate:
        """The mean as an estimate."""
        if self.n == 0:
            return Estimate(estimator, note="no decisions")
        if self.n == 1:
            return Estimate(estimator, self.mean, note="one decision has no spread")
        return Estimate.normal(estimator, self.mean, self.standard_error)
