"""Which arms have decisions that a metric leaves out, since nobody knows what they cost.

Invariant: an arm whose costs are unknown is missing by the router's choice and never at random, so
weights by propensities are too large for the others; that is told, and nothing is guessed.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from metallm_stream.evaluate.metrics import Measured
from metallm_stream.evaluate.overlap import LARGEST_SHARE, distrust


class LeftOut:
    """Counts by arm of the decisions that are due to count, and of those that cannot."""

    def __init__(self) -> None:
        self._due: Counter[str] = Counter()
        self._lacking: Counter[str] = Counter()

    def add(self, measured: Measured) -> None:
        """Take in the next decisions."""
        decisions = measured.decisions
        lacking = measured.due & ~np.isfinite(measured.reward)
        for column, arm in enumerate(decisions.arms):
            chosen = decisions.chosen == column
            self._due[arm] += int((measured.due & chosen).sum())
            self._lacking[arm] += int((lacking & chosen).sum())

    def notes(self) -> tuple[str, ...]:
        """Why no interval can be trusted; empty where few enough are left out of every arm."""
        found = ", ".join(
            f"{self._lacking[arm]:,} of {due:,} of {arm}"
            for arm, due in sorted(self._due.items())
            if self._lacking[arm] > LARGEST_SHARE * due
        )
        if not found:
            return ()
        return (f"decisions of unknown cost are left out ({found}): {distrust(anytime=False)}",)
