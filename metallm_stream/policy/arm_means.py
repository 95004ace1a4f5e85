"""The arms' mean qualities, drawn to a common mean as strongly as the arms resemble each other.

Invariant: an arm without events has the common mean, an arm with many its own; the strength
follows from the arms' means alone, and is positive and finite for any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# What is believed of any set of arms before events: a mean, and a variance between arms, each worth
# so many arms. Real pools of models had variances from .002 to .02.
_MEAN = 0.5
_VARIANCE, _WORTH = 0.02, 2.0
_STEPS = 20


@dataclass(frozen=True, eq=False)
class ArmMeans:
    """Posterior means of K arms.

    Attributes
    ----------
    means
        `(K,)`.
    common
        What an arm without events is expected to have.
    strength
        κ: the common mean counts like so many events of each arm.

    """

    means: NDArray[np.float64]
    common: float
    strength: float


def arm_means(
    observations: NDArray[np.float64], quality_sums: NDArray[np.float64], noise_variance: float
) -> ArmMeans:
    """Empirical Bayes for arms `y_k ~ N(m_k, σ²)`, `m_k ~ N(m, τ²)`, with κ = σ²/τ².

    Parameters
    ----------
    observations, quality_sums
        Labelled events and their summed qualities, `(K,)`.
    noise_variance
        σ² of one quality, above 0.

    Examples
    --------
    >>> found = arm_means(np.array([100.0, 100.0, 0.0]), np.array([90.0, 50.0, 0.0]), 0.2)
    >>> found.means.round(2), round(found.strength)
    (array([0.89, 0.51, 0.7 ]), 7)

    References
    ----------
    Efron & Morris (1975), Data analysis using Stein's estimator and its generalizations. Dempster,
    Laird & Rubin (1977), Maximum likelihood from incomplete data via the EM algorithm, section 4.

    """
    seen = observations > 0
    n, y = observations[seen], quality_sums[seen] / observations[seen]
    variance, common = _VARIANCE, _MEAN
    for _ in range(_STEPS):
        precision = np.append(1.0 / (variance + noise_variance / n), 1.0 / (variance + 1.0))
        common = float(precision @ np.append(y, _MEAN) / precision.sum())
        drawn = variance / (variance + noise_variance / n)
        spread = (drawn * (y - common)) ** 2 + variance * (1.0 - drawn)
        variance = float(spread.sum() + _WORTH * _VARIANCE) / (len(n) + _WORTH)
    strength = noise_variance / variance
    means = (quality_sums + strength * common) / (observations + strength)
    return ArmMeans(means, common, strength)
