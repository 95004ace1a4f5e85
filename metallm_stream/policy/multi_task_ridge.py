"""The default policy as a River policy: multi-task ridge, refreshed on a schedule, and a chooser.

Invariant: the fit in force is a function of the labelled events up to the last refresh, and the
refreshes come at event counts that do not depend on how updates were batched.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from river.bandit.base import RewardObj

from metallm_stream.policy.batch_policy import BatchPolicy
from metallm_stream.policy.chooser import Chooser
from metallm_stream.policy.registry import DEFAULT_CHOOSER, chooser
from metallm_stream.policy.ridge import RidgeFit, fit
from metallm_stream.policy.sums import Sums


class MultiTaskRidge(BatchPolicy):
    """Ridge regressions that share a direction, priors by evidence, propensities by a chooser.

    Learns fast where arms resemble each other, and falls back to the best fixed arm where
    contexts say nothing. Accumulating an event is cheap; a refresh costs one eigendecomposition
    for each arm that changed, so refreshes come when the events have grown by a share. Predicts
    the global mean before any learning. Rewards should lie in [0, 1].

    Parameters
    ----------
    rule
        Name of the rule of choice in the registry.
    refresh_growth
        Weights are refreshed when labelled events have grown by this share.
    evidence_growth
        Prior strengths are chosen anew when labelled events have grown by this share.
    reward_obj, burn_in, seed
        See `BatchPolicy`.

    Examples
    --------
    >>> policy = MultiTaskRidge(seed=7)
    >>> rng = np.random.default_rng(7)
    >>> for _ in range(300):
    ...     context = {"code": float(rng.integers(2))}
    ...     arm = policy.pull(["coder", "poet"], context)
    ...     policy.update(arm, context, float((arm == "coder") == (context["code"] == 1.0)))
    >>> [policy.pull(["coder", "poet"], {"code": code}) for code in (0.0, 1.0)]
    ['poet', 'coder']

    References
    ----------
    See `metallm_stream.policy.ridge` and `metallm_stream.policy.igw`.

    """

    def __init__(
        self,
        rule: str = DEFAULT_CHOOSER,
        *,
        refresh_growth: float = 0.1,
        evidence_growth: float = 0.5,
        reward_obj: RewardObj | None = None,
        burn_in: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(reward_obj=reward_obj, burn_in=burn_in, seed=seed)
        self.rule = rule
        self.refresh_growth = refresh_growth
        self.evidence_growth = evidence_growth
        self.sums = Sums(0)
        self._chooser = chooser(rule)
        self._fit: RidgeFit | None = None
        self._refresh_at = 1
        self._evidence_at = 1

    def until_refresh(self) -> float:
        """Labelled events until the weights are refreshed."""
        return self._refresh_at - self._n

    def _rule(self) -> Chooser:
        return self._chooser

    def _expected(self, contexts: NDArray[np.float64], arms: Sequence[str]) -> NDArray[np.float64]:
        if self._fit is None:
            return np.zeros((len(contexts), len(arms)))
        known = self._fit.shared_weights.shape[0]
        return self._fit.scorer().quality(contexts[:, :known], arms)

    def _observed(self, arms: Sequence[str]) -> NDArray[np.float64]:
        return np.zeros(len(arms)) if self._fit is None else self._fit.scorer().observed(arms)

    def _learn(
        self, arms: Sequence[str], contexts: NDArray[np.float64], rewards: NDArray[np.float64]
    ) -> None:
        if contexts.shape[1] > self.sums.dimensions:
            self.sums = self.sums.widened(contexts.shape[1])
        names = np.asarray(arms, dtype=object)
        done = 0
        for stop, anew in self._refreshes(len(names)):
            self._accumulate(names[done:stop], contexts[done:stop], rewards[done:stop])
            kept = self._fit.precisions if self._fit is not None and not anew else None
            self._fit = fit(self.sums, self.sums.arms, precisions=kept, previous=self._fit)
            done = stop
        self._accumulate(names[done:], contexts[done:], rewards[done:])

    def _accumulate(
        self,
        names: NDArray[np.object_],
        contexts: NDArray[np.float64],
        rewards: NDArray[np.float64],
    ) -> None:
        for arm in sorted(set(names)):
            rows = names == arm
            self.sums.add_quality(arm, contexts[rows], rewards[rows], np.ones(int(rows.sum())))

    def _refreshes(self, n: int) -> list[tuple[int, bool]]:
        """Positions in a batch of n events after which to refresh, and whether priors are chosen.

        Of the refreshes due within the batch only the last of each kind can still matter.
        """
        due: dict[bool, int] = {}  # whether priors are chosen anew: position
        while self._refresh_at <= self._n + n:
            anew = self._refresh_at >= self._evidence_at
            due[anew] = self._refresh_at - self._n
            if anew:
                due.pop(False, None)
                self._evidence_at = math.ceil(self._refresh_at * (1 + self.evidence_growth))
            step = math.ceil(self._refresh_at * (1 + self.refresh_growth))
            self._refresh_at = max(self._refresh_at + 1, step)
        return sorted((position, anew) for anew, position in due.items())
