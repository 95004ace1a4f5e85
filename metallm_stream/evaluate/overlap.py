"""How much of a log speaks about a target policy at all.

Invariant: computed from probabilities alone, never from rewards, so that it may be looked at
before the estimates are believed.
"""

from __future__ import annotations

import math

from metallm_stream.errors import counted
from metallm_stream.evaluate.bandit_log import BanditLog

# Below so many effective decisions, or with one decision of such a share of all weights, a limit
# theorem has nothing to go by.
FEWEST = 100.0
LARGEST_SHARE = 0.05
# Weights are 1 on average where the log shows all that the target chooses. Less by this share, and
# by so many standard errors, means that much of it was too rare to be seen.
LACKING_SHARE = 0.05
STANDARD_ERRORS = 3.0


def distrust(*, anytime: bool) -> str:
    """What a note ends with: which interval may be read instead, if there is an `anytime` one."""
    return f"no interval {'but dr_anytime ' if anytime else ''}can be trusted"


class Overlap:
    """Sums over a log's importance weights, which comes in pieces."""

    def __init__(self) -> None:
        self.decisions = 0
        self.largest_weight = 0.0
        self._weights = self._squares = self._missing = 0.0

    def add(self, log: BanditLog) -> None:
        """Take in the next decisions."""
        if not len(log):
            return
        weights = log.weights
        self.decisions += len(log)
        self.largest_weight = max(self.largest_weight, float(weights.max()))
        self._weights += float(weights.sum())
        self._squares += float(weights @ weights)
        self._missing += float(log.target[log.probabilities == 0].sum())

    @property
    def effective_decisions(self) -> float:
        """As many decisions of equal weight would be as good: `(Σw)² / Σw²` (Kish 1965)."""
        return self._weights**2 / self._squares if self._squares else 0.0

    @property
    def unsupported(self) -> float:
        """Share of the target's choices that the logging policy could not have made."""
        return self._missing / self.decisions if self.decisions else 0.0

    @property
    def lacking(self) -> float:
        """By how much mean weight and `unsupported` are below 1, if that is no chance; else 0."""
        if self.decisions == 0:
            return 0.0
        mean = self._weights / self.decisions
        variance = max(self._squares / self.decisions - mean**2, 0.0)
        error = math.sqrt(variance / self.decisions)
        lacking = 1 - self.unsupported - mean
        return lacking if lacking > max(LACKING_SHARE, STANDARD_ERRORS * error) else 0.0

    def notes(self, *, anytime: bool) -> tuple[str, ...]:
        """Why intervals cannot be trusted, but for an `anytime` one if there is any.

        Empty where nothing speaks against them.
        """
        if self.decisions == 0:
            return ("no decision counts for this policy and metric",)
        trusted = distrust(anytime=anytime)
        found = []
        if self.unsupported > 0:
            share = self.unsupported
            found.append(f"{share:.1%} of its choices had probability 0 in the log: {trusted}")
        if self.effective_decisions < FEWEST:
            effective = counted(self.effective_decisions, "effective decision")
            found.append(f"only {effective}: {trusted}")
        elif self.largest_weight > LARGEST_SHARE * self._weights:
            share = self.largest_weight / self._weights
            found.append(f"one decision has {share:.0%} of all weight: {trusted}")
        elif self.lacking:
            found.append(
                f"the log says nearly nothing about {self.lacking:.0%} of its choices, of tiny "
                f"probability or seldom judged there: {trusted}"
            )
        return tuple(found)
