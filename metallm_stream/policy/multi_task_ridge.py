"""The default policy as a River policy: multi-task ridge, refreshed on a schedule, and a chooser.

Invariant: the fit in force is a function of the labelled events up to the last refresh, and the
refreshes come at event counts that do not depend on how updates were batched, drift apart.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from river.bandit.base import RewardObj

from metallm_stream.policy.batch_policy import BatchPolicy
from metallm_stream.policy.beliefs import Beliefs
from metallm_stream.policy.chooser import Chooser
from metallm_stream.policy.event_memory import EventMemory
from metallm_stream.policy.pending import Pending
from metallm_stream.policy.registry import DEFAULT_CHOOSER, chooser
from metallm_stream.policy.ridge import RidgeFit, fit
from metallm_stream.policy.scorer import Scorer
from metallm_stream.policy.sums import Sums
from metallm_stream.policy.usage import Usage, usage_of_call


class MultiTaskRidge(BatchPolicy):
    """Ridge regressions that share a direction, priors by evidence, propensities by a chooser.

    Learns fast where arms resemble each other, and falls back to the best fixed arm where
    contexts say nothing. Accumulating an event is cheap; a refresh costs some milliseconds, so
    refreshes come when the events have grown by a share. Expects the same of all arms before any
    learning. Rewards should lie in [0, 1].

    Features must be of about the same scale: what differs most between contexts is learned first,
    and beside a feature that spreads a hundred times as wide as the others, nothing of the others
    is. Embeddings of unit length are; where a length stands beside a flag, divide it, or pass each
    context through `river.preprocessing.StandardScaler` before `pull` and `update`.

    Parameters
    ----------
    rule
        Name of the rule of choice in the registry.
    rule_parameters
        What the rule is made with; None: its defaults.
    refresh_growth
        Weights are refreshed when labelled events have grown by this share; after a shift, those
        since the shift, since much is learned of few again. With a half-life they are refreshed
        after this share of it at the latest, or the fit would outlive what it was made of.
    evidence_growth
        Prior strengths are chosen anew when labelled events have grown by this share; with a
        half-life after this share of it at the latest.
    half_life
        Events after which an event counts half as much; None: as much as ever.
    drift
        Detector of shifts, `adwin` or `page-hinkley`, after which an arm's older events count
        little, and newer ones age; None: none. A shift brings a refresh.
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
    See `metallm_stream.policy.ridge` and `metallm_stream.policy.elimination`.

    """

    def __init__(
        self,
        rule: str = DEFAULT_CHOOSER,
        *,
        rule_parameters: Mapping[str, Any] | None = None,
        refresh_growth: float = 0.05,
        evidence_growth: float = 0.2,
        half_life: float | None = None,
        drift: str | None = None,
        reward_obj: RewardObj | None = None,
        burn_in: int = 0,
        seed: int | None = None,
    ) -> None:
        super().__init__(reward_obj=reward_obj, burn_in=burn_in, seed=seed)
        self.rule = rule
        self.rule_parameters = rule_parameters
        self.refresh_growth = refresh_growth
        self.evidence_growth = evidence_growth
        self.half_life = half_life
        self.drift = drift
        self._sums = Sums(0)
        self._pending = Pending()
        self.memory = EventMemory(half_life, drift)
        self._chooser = chooser(rule, **(rule_parameters or {}))
        self._fit: RidgeFit | None = None
        self._scorer: Scorer = fit(self._sums, [""]).scorer()  # of no events, as services publish
        self._label_share = 0.0  # as after many calls: it stays until the first refresh
        self._called, self._counted = Sums(0), Counter[str]()  # pulls as sums, and how many of them
        self._calls: dict[str, float] = {}
        self._least = 0.0  # reward
        self._grows_from = 0
        self._refresh_at = 1
        self._evidence_at = 1

    @property
    def sums(self) -> Sums:
        """All that was learned so far."""
        self._pending.settle(self._sums)
        return self._sums

    def merge(self, shard: Sums) -> None:
        """Go on from these sums as well, as if their events had been learned here too; refreshes.

        They must hold no event that was learned here, and were learned by arrays, or dicts with
        the keys 0, 1, … in this order, from rewards in [0, 1], without a half-life or drift.
        `ranking` goes by this policy's own events.

        Raises `ConfigurationError` for other dimensions, and `ValueError` where this policy names
        its features or forgets; then nothing is merged.

        >>> shards = [MultiTaskRidge(), MultiTaskRidge()]  # on two machines
        >>> for shard, arm, reward in zip(shards, ["poet", "coder"], [0.2, 0.9]):
        ...     shard.update_many([arm] * 30, np.eye(30, 2), [reward] * 30)
        >>> policy = MultiTaskRidge(seed=7)
        >>> for shard in shards:
        ...     policy.merge(shard.sums)
        >>> policy.update("poet", {0: 1.0, 1: 0.0}, 0.1)  # and goes on
        >>> policy.sums.observations("poet"), policy.pull(["poet", "coder"], {1: 1.0})
        (31.0, 'coder')
        """
        if not self._features.are_numbers or self.half_life is not None or self.drift is not None:
            raise ValueError(
                "sums know neither names of features nor ages of events: merge them into a policy "
                "without half_life and drift, and of arrays or dicts with the keys 0, 1, …"
            )
        whole = self.sums.copy() if self.sums.arms else Sums(shard.dimensions)
        whole.merge(shard)
        self._features.add_columns(whole.dimensions)
        self._sums = whole
        events = Counter({arm: round(shard.observations(arm)) for arm in shard.arms})
        self._counts.update(events)
        self.pulls.update(events)
        self._count_pulls()
        self._refreshes(events.total())
        self._n += events.total()
        if whole.arms:
            self._refresh(self._n, anew=True)

    def until_refresh(self) -> float:
        """Labelled events until the weights are refreshed."""
        return self._refresh_at - self._n

    def _rule(self) -> Chooser:
        return self._chooser

    def _beliefs(self, contexts: NDArray[np.floating], arms: Sequence[str]) -> Beliefs:
        known = self._scorer.weights.shape[1]
        beliefs = self._scorer.beliefs(contexts[:, :known], arms, self._label_share, self._least)
        return replace(beliefs, calls=np.array([self._calls.get(arm, 0.0) for arm in arms]))

    def _learn(
        self, arms: Sequence[str], contexts: NDArray[np.floating], rewards: NDArray[np.float64]
    ) -> None:
        if contexts.shape[1] > self._sums.dimensions:
            self._sums = self.sums.widened(contexts.shape[1])
        self._least = min(self._least, float(rewards.min(initial=0.0)))
        names = np.asarray(arms, dtype=object)
        self._count_pulls()
        shifted = self._observe(names, contexts, rewards)
        done = 0
        for stop, anew in self._refreshes(len(names)):
            self._accumulate(names, contexts, rewards, slice(done, stop))
            self._refresh(self._n + stop, anew=anew)
            done = stop
        self._accumulate(names, contexts, rewards, slice(done, len(names)))
        if shifted:
            self._grows_from = self._n + len(names)
            self._refresh_at = self._grows_from + 1
            self._refresh(self._grows_from, anew=False)

    def _count_pulls(self) -> None:
        """Take in the pulls since the last events, which fade as events of their time do."""
        for arm, pulls in (self.pulls - self._counted).items():
            clock = self.memory.clock(arm, self._n)
            self._called.add_usage(arm, pulls * usage_of_call(), clock)
        self._counted = self.pulls.copy()

    def _observe(
        self,
        names: NDArray[np.object_],
        contexts: NDArray[np.floating],
        rewards: NDArray[np.float64],
    ) -> bool:
        """Compare rewards with what the fit in force expects; whether an arm has shifted."""
        if self.drift is None or self._fit is None:
            return False
        shifted = False
        for arm in sorted(set(names)):
            rows = np.flatnonzero(names == arm)
            known = contexts[rows][:, : self._scorer.weights.shape[1]]
            expected = self._scorer.quality(known, [arm])[:, 0]
            numbers, residuals = (self._n + rows).tolist(), (rewards[rows] - expected).tolist()
            shifted |= self.memory.observe(arm, numbers, residuals)
        return shifted

    def _refresh(self, events: int, *, anew: bool) -> None:
        """Fit the sums as they count after so many events."""
        kept = self._fit.precisions if self._fit is not None and not anew else None
        sums, called = self.sums, self._called
        if self.half_life is not None or self.drift is not None:
            arms = {*sums.arms, *called.arms}
            clocks = {arm: self.memory.clock(arm, events) for arm in arms}
            sums, called = sums.as_of(clocks), called.as_of(clocks)
        self._fit = fit(sums, sums.arms, precisions=kept)
        self._label_share = min(1.0, (events + 1.0) / (self.pulls.total() + 1.0))
        self._calls = {arm: float(called.usage(arm)[Usage.CALLS]) for arm in called.arms}
        self._scorer = self._fit.scorer()

    def _accumulate(
        self,
        names: NDArray[np.object_],
        contexts: NDArray[np.floating],
        rewards: NDArray[np.float64],
        part: slice,
    ) -> None:
        for arm in sorted(set(names[part])):
            rows = np.flatnonzero(names[part] == arm) + part.start
            scale = self.memory.log2_scale(arm, self._n + rows)
            self._pending.add(self._sums, arm, contexts[rows], rewards[rows], scale)

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
                if self.half_life is not None:
                    faded = math.ceil(self.half_life * self.evidence_growth)
                    self._evidence_at = min(self._evidence_at, self._refresh_at + faded)
            grown = (self._refresh_at - self._grows_from) * (1 + self.refresh_growth)
            step = self._grows_from + math.ceil(grown)
            if self.half_life is not None:
                faded = math.ceil(self.half_life * self.refresh_growth)
                step = min(step, self._refresh_at + faded)
            self._refresh_at = max(self._refresh_at + 1, step)
        return sorted((position, anew) for anew, position in due.items())
