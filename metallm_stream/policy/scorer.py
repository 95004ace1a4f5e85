"""Scores batches of contexts against arms in a few matrix products.

Invariant: every name gets a score: an arm that was never learned is scored by what all arms share,
and is as uncertain as the priors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs

# How much of the contexts' uncertainty counts beside that of an arm's mean: what is learned in one
# direction pays for those queries alone that lie in it.
_CONTEXT_SHARE = 0.02


@dataclass(frozen=True, eq=False)
class Scores:
    """What is expected of K arms for n contexts.

    Attributes
    ----------
    quality
        `(n, K)`. Not clipped to [0, 1]: clipping would make ties of the good arms of easy
        queries, and leave the choice among them to cost alone.
    leverage
        `(n, K)`: `(φ − φ̄_k)ᵀ(A_k + λ1)⁻¹(φ − φ̄_k)`, how far the context lies from what the arm
        was learned on; the variance of the prediction in units of the noise, the mean's apart.
    uncertainty
        `(n, K)`: variance of the expected quality in units of the noise, as exploration takes
        it; 1/n after n events that say all about it.

    """

    quality: NDArray[np.float64]
    leverage: NDArray[np.float64]
    uncertainty: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Scorer:
    """Linear predictions `mean_k + (x − x̄_k)·w_k` and their uncertainty.

    Attributes
    ----------
    arms
        Names of the K arms that were learned.
    weights, mean_context
        w and x̄, `(K + 1, d)`: one row an arm, and the last for any other arm.
    mean_quality, observations
        `(K + 1,)`, likewise.
    projection, roots
        Features `x·projection`, `(d, r)`, and R with `R·Rᵀ = (A_k + λ1)⁻¹`, `(K + 1, r, r)`.
    mean_strength
        Pseudo-observations behind each arm's mean.
    noise_variance
        σ² of a quality around its prediction.

    """

    arms: tuple[str, ...]
    weights: NDArray[np.floating]
    mean_context: NDArray[np.floating]
    mean_quality: NDArray[np.float64]
    observations: NDArray[np.float64]
    projection: NDArray[np.floating]
    roots: NDArray[np.floating]
    mean_strength: float
    noise_variance: float

    def quality(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> NDArray[np.float64]:
        """Predicted quality, `(n, K)`, of contexts `(n, d)` by the named arms."""
        rows = self._rows(arms)
        weights = self.weights[rows]
        means = self.mean_quality[rows] - np.sum(self.mean_context[rows] * weights, axis=1)
        predicted: NDArray[np.float64] = contexts @ weights.T + means
        return predicted

    def scores(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Scores:
        """Quality, leverage and uncertainty, `(n, K)` each, of contexts `(n, d)`."""
        leverage = self._leverage(contexts, self._rows(arms))
        mean = 1.0 / (self.observed(arms) + self.mean_strength)
        uncertainty = mean + _CONTEXT_SHARE * leverage
        return Scores(self.quality(contexts, arms), leverage, uncertainty)

    def beliefs(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Beliefs:
        """What a rule of choice may go by where quality is all that counts."""
        scores = self.scores(contexts, arms)
        return Beliefs(
            arms=tuple(arms),
            utility=scores.quality,
            uncertainty=scores.uncertainty,
            observations=self.observed(arms),
            noise_variance=self.noise_variance,
        )

    def observed(self, arms: Sequence[str]) -> NDArray[np.float64]:
        """Labelled events of the named arms, `(K,)`; 0 for an arm that was never learned."""
        return self.observations[self._rows(arms)]

    def _leverage(self, contexts: NDArray[np.floating], rows: Sequence[int]) -> NDArray[np.float64]:
        """`|(φ − φ̄_k)·R_k|²`, in one product for all arms."""
        k, rank = len(rows), self.projection.shape[1]
        roots = self.roots[rows]
        side_by_side = roots.transpose(1, 0, 2).reshape(rank, k * rank)
        means = np.einsum("kr,krs->ks", self.mean_context[rows] @ self.projection, roots)
        turned = (contexts @ self.projection) @ side_by_side - means.reshape(1, k * rank)
        squares = np.square(turned, out=turned).reshape(len(contexts), k, rank)
        leverage: NDArray[np.float64] = squares.sum(axis=2)
        return leverage

    def _rows(self, arms: Sequence[str]) -> list[int]:
        position = {arm: row for row, arm in enumerate(self.arms)}
        return [position.get(arm, len(position)) for arm in arms]
