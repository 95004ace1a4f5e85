"""Doubly robust estimation that counts noisy stretches of the log for less.

Invariant: a decision's weight depends on earlier decisions alone, so that the weighted scores are
still martingale differences; the weights keep their variance even, which is what the central
limit theorem asks for when the logging policy never settles.
"""

from __future__ import annotations

import math

import numpy as np

from metallm_stream.evaluate.bandit_log import BanditLog, Floats
from metallm_stream.evaluate.estimate import Estimate

WINDOW = 100


class WeightedDoublyRobust:
    """`V̂ = Σ h·Γ / Σ h`, with the variance `Σ h²·(Γ − V̂)² / (Σ h)²`.

    Γ are the doubly robust scores and `h = v^(-1/2)`, where v, the mean of `Σ_k π(k)²/e(k)` over
    the `WINDOW` decisions before (and a 1), stands for the score's expected variance under the
    logging probabilities e.

    Counts stretches of the log differently, so it means something for targets whose value is the
    same throughout: fixed policies on queries that do not drift.

    References
    ----------
    Hadad et al. 2021, eq. 5 (estimate) and 11 (variance); Zhan et al. 2021, "Off-policy evaluation
    via adaptive weighting with data from contextual bandits" (StableVar weights).

    """

    name = "dr_weighted"

    def __init__(self) -> None:
        self._n = 0
        self._recent: Floats = np.zeros(0)
        self._h = self._hs = 0.0
        self._hh = self._hhs = self._hhss = 0.0

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        h, scores = self._stabilisers(log), log.scores
        hs = h * scores
        self._n += len(log)
        self._h += float(h.sum())
        self._hs += float(hs.sum())
        self._hh += float(h @ h)
        self._hhs += float(h @ hs)
        self._hhss += float(hs @ hs)

    def estimate(self) -> Estimate:
        """The weighted mean of the scores."""
        if self._n == 0:
            return Estimate(self.name, note="no decisions")
        value = self._hs / self._h
        if self._n == 1:
            return Estimate(self.name, value, note="one decision has no spread")
        spread = self._hhss - 2 * value * self._hhs + value**2 * self._hh
        return Estimate.normal(self.name, value, math.sqrt(max(spread, 0.0)) / self._h)

    def _stabilisers(self, log: BanditLog) -> Floats:
        """`h` of the next decisions, `(n,)`; remembers what the ones after them need."""
        supported = log.probabilities > 0
        parts = np.divide(
            log.target**2, log.probabilities, out=np.zeros_like(log.target), where=supported
        )
        known = np.concatenate([self._recent, parts.sum(axis=1)])
        totals = np.concatenate([[0.0], np.cumsum(known)])
        ends = len(self._recent) + np.arange(len(log))
        starts = np.maximum(ends - WINDOW, 0)
        v = (1 + totals[ends] - totals[starts]) / (1 + ends - starts)
        self._recent = known[-WINDOW:]
        stabilisers: Floats = 1 / np.sqrt(v)
        return stabilisers
