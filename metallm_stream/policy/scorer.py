"""Scores batches of contexts against arms in one matrix product.

Invariant: every name gets a score: an arm that was never learned is scored by what all arms share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Scorer:
    """Linear predictions `mean_k + (x − x̄_k)·θ_k`.

    Attributes
    ----------
    arms
        Names of the K arms that were learned.
    weights, mean_context
        θ and x̄, `(K + 1, d)`: one row an arm, and the last for any other arm.
    mean_quality, observations
        `(K + 1,)`, likewise.

    """

    arms: tuple[str, ...]
    weights: NDArray[np.floating]
    mean_context: NDArray[np.floating]
    mean_quality: NDArray[np.float64]
    observations: NDArray[np.float64]

    def quality(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> NDArray[np.float64]:
        """Predicted quality, `(n, K)`, of contexts `(n, d)` by the named arms.

        Not clipped to [0, 1]: clipping would make ties of the good arms of easy queries, and
        leave the choice among them to cost alone.
        """
        rows = self._rows(arms)
        weights = self.weights[rows]
        means = self.mean_quality[rows] - np.sum(self.mean_context[rows] * weights, axis=1)
        predicted: NDArray[np.float64] = contexts @ weights.T + means
        return predicted

    def observed(self, arms: Sequence[str]) -> NDArray[np.float64]:
        """Labelled events of the named arms, `(K,)`; 0 for an arm that was never learned."""
        return self.observations[self._rows(arms)]

    def _rows(self, arms: Sequence[str]) -> list[int]:
        position = {arm: row for row, arm in enumerate(self.arms)}
        return [position.get(arm, len(position)) for arm in arms]
