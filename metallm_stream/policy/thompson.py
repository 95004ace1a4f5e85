"""Thompson sampling: each arm as often as it is the best one under the posterior.

Invariant: every allowed arm keeps at least `floor / K_allowed`; the probabilities are computed, not
simulated, and arms are drawn from them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import check_share, floored
from metallm_stream.policy.patience import patiently

# Even steps of the integral, refined by as many more, and the standard deviations it reaches out.
_STEPS, _REACH = 32, 4.0


@dataclass(frozen=True)
class Thompson:
    """Probability matching: `p_a = P(û_a + sd_a·z_a is the largest)`, z independent and normal.

    Explores by the posterior alone, without a schedule; over-explores short streams with many
    arms. The distribution function is the logistic one of a cubic, which differs from the normal
    one by at most 0.00014; propensities are those of the distribution that is used, exactly.

    Parameters
    ----------
    scale
        Factor of the variance, above 0; below 1 explores less than the posterior says.
    floor
        Share of probability spread evenly over the allowed arms, in [0, 1].

    Examples
    --------
    >>> unsure = np.full((1, 2), 0.05)
    >>> known = Beliefs(("a", "b"), np.array([[0.9, 0.8]]), unsure, np.full(2, 20.0), 0.2)
    >>> Thompson(floor=0.0).probabilities(known, np.ones((1, 2), bool)).round(2)
    array([[0.92, 0.08]])

    References
    ----------
    Thompson (1933), On the likelihood that one unknown probability exceeds another. Agrawal & Goyal
    (2013), Thompson sampling for contextual bandits with linear payoffs, algorithm 1. Bowling et
    al. (2009), A logistic approximation to the cumulative normal distribution, equation 6.

    """

    scale: float = 0.25
    floor: float = 0.01
    name: str = "ridge-thompson"

    def __post_init__(self) -> None:
        check_share("floor", self.floor)
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, got {self.scale!r}")

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Probabilities, `(n, K)`; see `Chooser.probabilities`."""
        allowed = beliefs.mask(allowed)
        shares = patiently(beliefs, allowed, lambda some: self._matched(beliefs, some))
        return floored(shares, allowed, self.floor)

    def _matched(self, beliefs: Beliefs, allowed: NDArray[np.bool_]) -> NDArray[np.float64]:
        mean = np.where(allowed, beliefs.utility, 0.0)
        uncertainty = np.where(allowed, beliefs.uncertainty, 1.0)
        deviation = np.sqrt(self.scale * beliefs.noise_variance * uncertainty)
        high = np.where(allowed, mean + _REACH * deviation, -np.inf).max(axis=1)
        low = np.where(allowed, mean - _REACH * deviation, -np.inf).max(axis=1)
        values = np.linspace(low, high, _STEPS + 1, axis=1)  # (n, S + 1)
        values = _refined(values, self._below(values, mean, deviation, allowed).prod(axis=2))
        below = self._below(values, mean, deviation, allowed)
        middle = np.maximum((below[:, 1:] + below[:, :-1]) / 2, 1e-300)
        others = np.exp(np.log(middle).sum(axis=2, keepdims=True) - np.log(middle))
        shares: NDArray[np.float64] = (np.diff(below, axis=1) * others).sum(axis=1) * allowed
        shares /= shares.sum(axis=1, keepdims=True)
        return shares

    @staticmethod
    def _below(
        values: NDArray[np.float64],
        mean: NDArray[np.float64],
        deviation: NDArray[np.float64],
        allowed: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Probability that an arm is below each value, `(n, S, K)`; 1 where it is not allowed."""
        below = _normal((values[:, :, None] - mean[:, None]) / deviation[:, None])
        return np.where(allowed[:, None], below, 1.0)


def _refined(values: NDArray[np.float64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values `(n, S + 1)` and as many more where the largest draw's distribution `mass` rises."""
    mass = mass / mass[:, -1:]
    levels = np.linspace(0.0, 1.0, values.shape[1])
    left = (mass[:, None, 1:-1] <= levels[:, None]).sum(axis=2)
    start, end = (np.take_along_axis(mass, left + i, axis=1) for i in (0, 1))
    part = np.clip((levels - start) / np.maximum(end - start, 1e-300), 0.0, 1.0)
    low, high = (np.take_along_axis(values, left + i, axis=1) for i in (0, 1))
    return np.sort(np.concatenate((values, low + part * (high - low)), axis=1), axis=1)


def _normal(z: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logistic approximation of the normal distribution function."""
    cubic = np.clip(1.5976 * z + 0.070565992 * z**3, -500.0, 500.0)
    distribution: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-cubic))
    return distribution
