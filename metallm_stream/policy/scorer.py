"""Scores batches of contexts against arms in a few matrix products.

Invariant: every name gets a score: an arm that was never learned is scored by what all arms share,
and is as uncertain as the priors are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs

# How much of the contexts' uncertainty counts beside that of an arm's mean: what is learned in one
# direction pays for those queries alone that lie in it.
_CONTEXT_SHARE = 0.02


# Sets of arms whose layout is remembered; a catalogue changes now and then.
_KNOWN = 16


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
    _known: dict[tuple[tuple[str, ...], str], _Asked] = field(
        default_factory=dict, init=False, repr=False
    )

    def __getstate__(self) -> dict[str, object]:
        """All but the layouts, which follow from the rest."""
        return {**self.__dict__, "_known": {}}

    def quality(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> NDArray[np.float64]:
        """Predicted quality, `(n, K)`, of contexts `(n, d)` by the named arms."""
        asked = self._asked(arms, contexts.dtype)
        predicted: NDArray[np.float64] = (
            contexts @ asked.products[:, : len(arms)] + asked.intercepts
        )
        return predicted

    def scores(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Scores:
        """Quality, leverage and uncertainty, `(n, K)` each, of contexts `(n, d)`.

        In two products for all arms, in the precision of the contexts: theirs, and that of their
        features and a constant. What is returned lies arm by arm in memory, so that sums over the
        few arms run along the many queries.
        """
        asked, k = self._asked(arms, contexts.dtype), len(arms)
        product = contexts @ asked.products
        product[:, -1] = 1.0
        turned = (product[:, k:] @ asked.roots).reshape(len(contexts), k, self.roots.shape[1])
        leverage = np.vecdot(turned, turned).astype(np.float64, order="F")
        uncertainty = asked.mean_uncertainty + _CONTEXT_SHARE * leverage
        quality = np.add(product[:, :k], asked.intercepts, order="F")
        return Scores(quality, leverage, uncertainty)

    def beliefs(
        self,
        contexts: NDArray[np.floating],
        arms: Sequence[str],
        label_share: float = 1.0,
        least: float = 0.0,
    ) -> Beliefs:
        """What a rule of choice may go by where quality is all that counts; none is below `least`.

        Nothing is known to be worse than what is known to bring nothing.
        """
        scores = self.scores(contexts, arms)
        return Beliefs(
            arms=tuple(arms),
            utility=np.maximum(scores.quality, least),
            uncertainty=scores.uncertainty,
            observations=self._asked(arms, contexts.dtype).observations,
            noise_variance=self.noise_variance,
            label_share=label_share,
        )

    def observed(self, arms: Sequence[str]) -> NDArray[np.float64]:
        """Labelled events of the named arms, `(K,)`; 0 for an arm that was never learned."""
        return self._asked(arms, np.dtype(np.float64)).observations

    def _asked(self, arms: Sequence[str], precision: np.dtype[Any]) -> _Asked:
        key = (tuple(arms), precision.char)
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            found = self._known[key] = self._laid_out(arms, precision)
        return found

    def _laid_out(self, arms: Sequence[str], precision: np.dtype[Any]) -> _Asked:
        position = {arm: row for row, arm in enumerate(self.arms)}
        rows = [position.get(arm, len(position)) for arm in arms]
        k, (d, rank) = len(rows), self.projection.shape
        weights, means, roots = self.weights[rows], self.mean_context[rows], self.roots[rows]
        centres = np.einsum("kr,krs->ks", means @ self.projection, roots)
        side_by_side = roots.transpose(1, 0, 2).reshape(rank, k * rank)
        return _Asked(
            products=np.hstack((weights.T, self.projection, np.zeros((d, 1)))).astype(precision),
            intercepts=self.mean_quality[rows] - np.sum(means * weights, axis=1),
            roots=np.vstack((side_by_side, -centres.reshape(1, k * rank))).astype(precision),
            observations=self.observations[rows],
            mean_uncertainty=1.0 / (self.observations[rows] + self.mean_strength),
        )


@dataclass(frozen=True, eq=False)
class _Asked:
    """What a scorer knows of K arms, laid out for few products.

    Attributes
    ----------
    products
        Weights, projection and a column of zeros, `(d, K + r + 1)`.
    intercepts, observations, mean_uncertainty
        `(K,)`.
    roots
        R of all arms side by side, and below them `−φ̄_k·R_k`, `(r + 1, K·r)`.

    """

    products: NDArray[np.floating]
    intercepts: NDArray[np.float64]
    roots: NDArray[np.floating]
    observations: NDArray[np.float64]
    mean_uncertainty: NDArray[np.float64]
