"""Labelled events that wait to be added to the sums, since many cost one product like a few.

Invariant: an event is in the sums or waits here, and what it counts was settled when it came.
"""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.sums import Sums

# Events of one arm beyond which a product gains nothing by more.
_ENOUGH = 128
_Events = tuple[NDArray[np.floating], NDArray[np.float64], NDArray[np.float64]]


class Pending:
    """Events by arm, on their way into `sums`.

    >>> sums = Sums(dimensions=1)
    >>> pending = Pending()
    >>> pending.add(sums, "mini", np.ones((1, 1)), np.ones(1), np.zeros(1))
    >>> before = sums.observations("mini")
    >>> pending.settle(sums)
    >>> before, sums.observations("mini")
    (0.0, 1.0)
    """

    def __init__(self) -> None:
        self._events: defaultdict[str, list[_Events]] = defaultdict(list)
        self._counts: defaultdict[str, int] = defaultdict(int)

    def add(
        self,
        sums: Sums,
        arm: str,
        contexts: NDArray[np.floating],
        qualities: NDArray[np.float64],
        log2_scale: NDArray[np.float64],
    ) -> None:
        """Take events as `Sums.add_quality` does, and give them to `sums` when they are many.

        The arrays are kept, so they must not be changed.
        """
        self._events[arm].append((contexts, qualities, log2_scale))
        self._counts[arm] += len(qualities)
        if self._counts[arm] >= _ENOUGH:
            self._give(sums, arm)

    def settle(self, sums: Sums) -> None:
        """Give `sums` all that waits."""
        for arm in sorted(self._events):
            self._give(sums, arm)

    def _give(self, sums: Sums, arm: str) -> None:
        contexts, qualities, scales = map(np.concatenate, zip(*self._events.pop(arm), strict=True))
        sums.add_quality(arm, contexts, qualities, np.ones(self._counts.pop(arm)), scales)
