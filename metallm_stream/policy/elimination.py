"""Soft elimination, the default: arms are tried for as long as they may still be the best.

Invariant: every allowed arm keeps at least its part of the floor, so nothing is ever locked out and
any other policy can be evaluated from the log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import check_share, even
from metallm_stream.policy.patience import LABELS_AN_ARM, at_least, patience

# What is left of the schedule for an arm that has been tried enough, so that nothing divides by 0.
_LEAST = 1e-3
# An arm that would be so far behind the best even with a perfect answer gets half of its part of
# the floor, so that no arm, be it ever so dear, costs much by it.
_HALVED = 0.1


@dataclass(frozen=True)
class SoftElimination:
    """Weigh arms by `exp(−(gap² / 2v)^1.5)`: gap behind the best, and v its variance as it counts.

    Nearly even among arms that cannot be told apart, and next to nothing for arms that are further
    behind than their uncertainty explains: no arm needs a fixed number of first pulls, and bad ones
    are given up after few. A power of 1 would be Maillard sampling; a steeper fall spends less on
    arms that are clearly behind, and at 2 one that was unlucky at first is given up for too long.

    `v = σ²·u·√s`, with u the arm's `uncertainty` and the schedule `s = ln⁺(T·u/K) / ln(T/K)`, 1 for
    an arm known like after one event and 0 for one known like after T/K: what would still be
    learned of it pays no longer within T events. T is what `horizon` decisions bring in labels, ten
    an arm at least, since labels may be late, and grows with the labelled events beyond that, so a
    long stream goes on comparing what is close.

    An arm whose calls go unjudged is not explored for ever. While it has n < 10 labels, and its
    calls would have brought L at the share of labels of all calls, its weight is `10·(n + 1)²/L` of
    that if this is below 1 (and falls to 1/m of it for m such arms), and gaps are those behind the
    best of the other arms, or behind what it brings even if its answers are worthless, should that
    be more. So an arm that is never judged gets a part of the calls that falls like 1/√t, and all
    of them where nothing else pays.

    Parameters
    ----------
    horizon
        Decisions that exploration is to pay for, at least.
    floor
        Share of probability, in [0, 1], that the allowed arms have at least, 1/K each; an arm that
        would be behind by g even if it answered perfectly has `.1 / (.1 + g)` of that.

    Examples
    --------
    >>> arms, wide = ("a", "b", "c"), np.full((1, 3), 1 / 10)
    >>> utility, seen = np.array([[0.9, 0.8, 0.3]]), np.full(3, 10.0)
    >>> rule, everything = SoftElimination(), np.ones((1, 3), bool)
    >>> rule.probabilities(Beliefs(arms, utility, wide, seen, 0.2), everything).round(3)
    array([[0.541, 0.458, 0.002]])
    >>> rule.probabilities(Beliefs(arms, utility, wide / 100, seen * 100, 0.2), everything).round(3)
    array([[0.997, 0.002, 0.002]])

    References
    ----------
    Bian & Jun (2022), Maillard sampling: Boltzmann exploration done optimally, equation 3, for the
    weights' form. Audibert & Bubeck (2009), Minimax policies for adversarial and stochastic
    bandits, section 2, for the schedule. Both were changed: see docs/decisions.

    """

    horizon: float = 4000.0
    floor: float = 0.005
    name: str = "ridge-elimination"

    def __post_init__(self) -> None:
        check_share("floor", self.floor)
        if not self.horizon > 0:
            raise ValueError(f"horizon must be above 0, got {self.horizon!r}")

    def probabilities(
        self, beliefs: Beliefs, allowed: NDArray[np.bool_] | None
    ) -> NDArray[np.float64]:
        """Probabilities, `(n, K)`; see `Chooser.probabilities`."""
        beliefs.check(allowed)
        utility, uncertainty = beliefs.utility, beliefs.uncertainty
        if allowed is not None:
            utility = np.where(allowed, utility, -np.inf)
            uncertainty = np.where(allowed, uncertainty, 1.0)
        kept = patience(beliefs)
        best = self._best(utility, beliefs.headroom, kept)
        gap = np.maximum(best - utility, 0.0)
        schedule = self._schedule(beliefs, uncertainty)
        relative = gap * gap / (uncertainty * np.sqrt(schedule) * (2.0 * beliefs.noise_variance))
        weights = np.exp(-relative * np.sqrt(relative))  # to the power of 1.5
        weights *= kept
        floors = self._floors(utility, beliefs.headroom, allowed)
        left = 1.0 - floors.sum(axis=1, keepdims=True)
        shares: NDArray[np.float64] = weights * (left / weights.sum(axis=1, keepdims=True))
        return floors + shares

    @staticmethod
    def _best(
        utility: NDArray[np.float64],
        headroom: NDArray[np.float64] | None,
        kept: NDArray[np.float64],
    ) -> NDArray[np.float64]:
        """The best utility, `(n, 1)`, of the arms whose labels come, if any is allowed.

        Others count with what they bring at least: a perfect answer is worth 1 at most.
        """
        best: NDArray[np.float64] = utility.max(axis=1, keepdims=True)
        if (kept == 1.0).all():
            return best
        known = np.where(kept == 1.0, utility, -np.inf).max(axis=1, keepdims=True)
        sure = np.maximum(known, at_least(utility, headroom).max(axis=1, keepdims=True))
        return np.where(known > -np.inf, sure, best)

    def _floors(
        self,
        utility: NDArray[np.float64],
        headroom: NDArray[np.float64] | None,
        allowed: NDArray[np.bool_] | None,
    ) -> NDArray[np.float64]:
        """The least probability of each arm, `(n, K)`; 0 where it is not allowed."""
        k = utility.shape[1]
        evenly = np.full(utility.shape, 1.0 / k) if allowed is None else even(allowed)
        floors: NDArray[np.float64] = self.floor * evenly
        if headroom is None:
            return floors
        behind = utility.max(axis=1, keepdims=True) - (utility + headroom)
        graded: NDArray[np.float64] = floors * (_HALVED / (_HALVED + np.maximum(behind, 0.0)))
        return graded

    def _schedule(self, beliefs: Beliefs, uncertainty: NDArray[np.float64]) -> NDArray[np.float64]:
        k = len(beliefs.arms)
        labels = self.horizon * beliefs.label_share
        # However many calls wait for labels, arms are compared until the first ones come.
        events = max(labels, sum(beliefs.observations.tolist()), LABELS_AN_ARM * k)
        passed = np.log(uncertainty * (events / k)) / math.log(events / k)
        schedule: NDArray[np.float64] = np.minimum(np.maximum(passed, _LEAST), 1.0)
        return schedule
