"""A logged stretch of decisions as off-policy estimators read it.

Invariant: every row could have happened: the chosen arm had the logged propensity, which is in
(0, 1], and everything that is not an outcome (propensities, predictions, target) was fixed before
the outcome was seen. The latter is what keeps the estimators right while the logging policy learns
from the log: all of it is predictable with respect to the past.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]
TOLERANCE = 1e-6


@dataclass(frozen=True, eq=False)
class BanditLog:
    """n decisions among K arms, in the order in which they were made.

    Attributes
    ----------
    chosen
        Column of the arm that was drawn, `(n,)`.
    propensity
        Probability with which it was drawn, `(n,)`, in (0, 1].
    reward
        What came of it, `(n,)`.
    probabilities
        The logging policy's, `(n, K)`; 0 where an arm was not allowed.
    predicted
        The reward that was expected of each arm before the draw, `(n, K)`; 0 where nothing was.
    target
        The probabilities of the policy to be evaluated, `(n, K)`; each row adds up to 1.

    `ValueError` names the first row and value that cannot be.

    """

    chosen: NDArray[np.int64]
    propensity: Floats
    reward: Floats
    probabilities: Floats
    predicted: Floats
    target: Floats

    def __post_init__(self) -> None:
        self._check_shapes()
        self._require((self.propensity > 0) & (self.propensity <= 1), "propensity", "in (0, 1]")
        self._require(np.isfinite(self.reward), "reward", "a finite number")
        finite = np.isfinite(self.predicted)
        self._require(_whole_rows(finite), "predicted", "finite numbers")
        for name in ("probabilities", "target"):
            values: Floats = getattr(self, name)
            inside = (values >= 0) & (values <= 1 + TOLERANCE)
            self._require(_whole_rows(inside), name, "in [0, 1]")
            adds_up = np.abs(values.sum(axis=1) - 1) <= TOLERANCE
            self._require(adds_up, name, "probabilities that add up to 1")
        logged = self.of_chosen(self.probabilities)
        agrees = np.abs(logged - self.propensity) <= TOLERANCE
        self._require(agrees, "propensity", "the chosen arm's own probability")

    def __len__(self) -> int:
        return len(self.chosen)

    @property
    def weights(self) -> Floats:
        """Importance weights, target over propensity of the chosen arm, `(n,)`."""
        return self.of_chosen(self.target) / self.propensity

    @property
    def scores(self) -> Floats:
        """Doubly robust scores, `(n,)`: what a decision says of the target's value.

        `w·(r − q̂(chosen)) + Σ_k π(k)·q̂(k)`. A score's mean, given the past and the query, is the
        target's value at this query, whatever the prediction and however the logging policy
        changes.

        References
        ----------
        Dudík, Langford & Li 2011, "Doubly robust policy evaluation and learning", eq. 1.

        """
        direct: Floats = (self.target * self.predicted).sum(axis=1)
        return self.weights * (self.reward - self.of_chosen(self.predicted)) + direct

    def of_chosen(self, values: Floats) -> Floats:
        """The chosen arm's among values `(n, K)`, as `(n,)`."""
        chosen: Floats = np.take_along_axis(values, self.chosen[:, None], axis=1)[:, 0]
        return chosen

    def _check_shapes(self) -> None:
        n, arms = self.target.shape
        for name in ("chosen", "propensity", "reward"):
            found = getattr(self, name).shape
            if found != (n,):
                raise ValueError(f"{name}: expected {n} values, one a decision, got shape {found}")
        for name in ("probabilities", "predicted"):
            found = getattr(self, name).shape
            if found != (n, arms):
                raise ValueError(f"{name}: expected shape {(n, arms)} as of target, got {found}")
        self._require((self.chosen >= 0) & (self.chosen < arms), "chosen", f"below {arms}")

    def _require(self, holds: Mask, name: str, wanted: str) -> None:
        if not holds.all():
            row = int(np.argmin(holds))
            value = getattr(self, name)[row]
            raise ValueError(f"{name} of row {row} is {value}, but must be {wanted}")


def _whole_rows(holds: Mask) -> Mask:
    """The rows `(n,)` in which it holds for every arm."""
    whole: Mask = np.logical_and.reduce(holds, axis=1)
    return whole
