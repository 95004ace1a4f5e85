"""What events count where time is counted in events: forgetting and drift for the River policy.

Invariant: without a half-life and without a detector every event counts 1, and nothing is kept.
Clocks are those of `metallm_stream.policy.forgetting`, where the number of an event is its time.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from metallm_stream.policy.drift import (
    AGEING_ANSWERS,
    LAG_S,
    ArmWatch,
    Drift,
    Residual,
    ResidualWatch,
)
from metallm_stream.policy.forgetting import ArmClock

# What an arm's older events count after a shift.
FACTOR = 0.02


class EventMemory:
    """Each arm's clock, in halvings, as events go by.

    Parameters
    ----------
    half_life
        Events after which an event counts half as much; None: as much as ever.
    drift
        Name of a detector in `metallm_stream.policy.drift`, or None: nothing is watched.

    """

    def __init__(self, half_life: float | None = None, drift: str | None = None) -> None:
        if half_life is not None and not 0 < half_life < math.inf:
            raise ValueError(f"half_life must be positive and finite, got {half_life!r}")
        self.half_life = half_life
        self.shifts: list[tuple[int, Drift]] = []
        self._watch = ResidualWatch(drift) if drift is not None else None
        self._held: dict[str, ArmWatch] = {}
        self._plain = ArmClock(() if half_life is None else ((0.0, math.inf, half_life),))
        self._clocks: dict[str, ArmClock] = {}

    def clock(self, arm: str, events: float) -> float:
        """The arm's clock after so many events: the binary logarithm of a new event's weight."""
        return self._clocks.get(arm, self._plain).reading(events)

    def log2_scale(self, arm: str, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """The clock at the events of these numbers, `(n,)`."""
        clock = self._clocks.get(arm, self._plain)
        if clock == ArmClock():
            return np.zeros(len(numbers))
        return np.array([clock.reading(number) for number in numbers.tolist()])

    def observe(self, arm: str, numbers: Sequence[int], residuals: Sequence[float]) -> bool:
        """Watch an arm's residuals; whether they show a shift, after which its memory is short."""
        if self._watch is None:
            return False
        seen = [
            Residual(arm, _moment(number), value)
            for number, value in zip(numbers, residuals, strict=True)
        ]
        clock, last = self._clocks.get(arm, self._plain), numbers[-1]
        shifted_s = _moment(clock.jumps[-1][0]).timestamp() if clock.jumps else None
        held, drift = self._watch.observe(self._held.get(arm), seen, _moment(last), shifted_s)
        self._held[arm] = held
        if drift is None:
            return False
        self.shifts.append((last, drift))
        jump = (last + 1.0, -math.log2(FACTOR), AGEING_ANSWERS)
        self._clocks[arm] = replace(clock, jumps=(*clock.jumps, jump))
        return True


def _moment(number: float) -> datetime:
    """The time of an event: the next one comes when a fit that has learned of it decides."""
    return datetime.fromtimestamp(number * LAG_S, UTC)
