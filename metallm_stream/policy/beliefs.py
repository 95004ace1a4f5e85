"""What is believed of K arms for n queries: all that a rule of choice may go by.

Invariant: shapes agree, each arm is named once, and nothing is NaN or infinite where it is allowed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray


def check_named_once(arms: Sequence[str]) -> None:
    """Raise `ValueError` for an arm that is named twice: it would count twice."""
    if len(set(arms)) < len(arms):
        twice = next(arm for arm in arms if arms.count(arm) > 1)
        raise ValueError(f"arm {twice!r} is named more than once: name each arm once")


@dataclass(frozen=True, eq=False)
class Beliefs:
    """Expected utilities and how sure they are.

    Attributes
    ----------
    arms
        Names of the K arms.
    utility
        Expected utility, `(n, K)`.
    uncertainty
        Variance of the expected utility in units of `noise_variance`, `(n, K)`, above 0: 1/m for an
        arm known like after m events.
    observations
        Labelled events of each arm, `(K,)`.
    noise_variance
        Variance of one event around its expectation, above 0.
    label_share
        Labelled events a decision so far, in [0, 1].
    headroom
        What a perfect answer would bring beyond the expected utility, `(n, K)`; None if not known.
    calls
        Calls of each arm, labelled or not, `(K,)`; 0 where nobody counted them.
    contexts
        `(n, d)`, for rules that go by more than expectations; None where nobody gave them.

    """

    arms: tuple[str, ...]
    utility: NDArray[np.float64]
    uncertainty: NDArray[np.float64]
    observations: NDArray[np.float64]
    noise_variance: float
    label_share: float = 1.0
    headroom: NDArray[np.float64] | None = None
    calls: NDArray[np.float64] | float = 0.0
    contexts: NDArray[np.floating] | None = None

    @classmethod
    def nothing(cls, arms: tuple[str, ...], n: int) -> Self:
        """Before anything was learned: all arms alike."""
        k = len(arms)
        return cls(arms, np.zeros((n, k)), np.ones((n, k)), np.zeros(k), 0.25)

    def __getitem__(self, rows: slice | NDArray[np.bool_]) -> Beliefs:
        """The beliefs about some of the queries."""
        contexts = None if self.contexts is None else self.contexts[rows]
        headroom = None if self.headroom is None else self.headroom[rows]
        utility, uncertainty = self.utility[rows], self.uncertainty[rows]
        return replace(
            self, utility=utility, uncertainty=uncertainty, headroom=headroom, contexts=contexts
        )

    def mask(self, allowed: NDArray[np.bool_] | None) -> NDArray[np.bool_]:
        """Which arms each query may use, `(n, K)`, after `check`; None stands for all."""
        self.check(allowed)
        return np.ones(self.utility.shape, dtype=np.bool_) if allowed is None else allowed

    def with_variance(self, variance: NDArray[np.float64]) -> Beliefs:
        """The beliefs where the utility is uncertain by more than quality, `(n, K)`."""
        return replace(self, uncertainty=self.uncertainty + variance / self.noise_variance)

    def check(self, allowed: NDArray[np.bool_] | None) -> None:
        """Raise `ValueError` unless the invariant holds and each row allows an arm."""
        check_named_once(self.arms)
        self._check_shapes(self.utility.shape if allowed is None else allowed.shape)
        finite, sure = np.isfinite(self.utility), np.isfinite(self.uncertainty)
        sure &= self.uncertainty > 0
        if allowed is not None:
            some = allowed.any(axis=1)
            if not some.all():
                raise ValueError(f"query {int(np.argmin(some))} of the batch allows no arm")
            finite |= ~allowed
            sure |= ~allowed
        if not (finite & sure).all() or not 0 < self.noise_variance < np.inf:
            if not finite.all():
                raise ValueError("utilities of allowed arms must be finite")
            raise ValueError(
                "uncertainties of allowed arms and the noise must be above 0 and finite"
            )

    def _check_shapes(self, allowed: tuple[int, ...]) -> None:
        k = len(self.arms)
        shapes = (self.utility.shape, self.uncertainty.shape, allowed)
        if shapes != ((*allowed[:1], k),) * 3:
            raise ValueError(
                f"expected utility, uncertainty and allowed of shape (n, {k}), "
                f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
            )
        if self.observations.shape != (k,):
            raise ValueError(
                f"expected observations of shape ({k},), got {self.observations.shape}"
            )
