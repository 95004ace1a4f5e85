"""What an event counts by its age: forward decay, as a clock for each arm.

Invariant: an event's weight depends on its arm, its time and what the clock's rows say up to that
time, and on nothing else. A row that takes effect later changes no earlier weight, so weighted
sums stay sums: order, shards, batches and repetitions change nothing.

An event at time t weighs `2^L(t)`, where the arm's clock L grows by 1 in each half-life, and by
`log2(1/factor)` where a shift has shortened the arm's memory. Nothing decays in place; the
reader divides by `2^L(now)`.

References
----------
Cormode, Shkapenyuk, Srivastava & Xu (2009), Forward decay: a practical time decay model for
streaming systems, section 3.

"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

# A reader's clock moves in steps of this part of a half-life, so that between two steps the sums
# it reads stay the same to the bit; an event then counts at most 1.1 % more than it should.
STEPS = 64


@dataclass(frozen=True, slots=True)
class HalfLife:
    """The half-life of all arms from `effective_at` until the next row, or None: no decay."""

    effective_at: datetime
    half_life_s: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """From `effective_at`, what one arm has learned before counts only `factor` of itself."""

    arm: str
    effective_at: datetime
    factor: float


@dataclass(frozen=True, slots=True)
class ArmClock:
    """One arm's clock: `segments` of (start, end, half-life) and `jumps` of (time, halvings).

    Times are seconds since 1970, in ascending order; segments without decay are left out.
    """

    segments: tuple[tuple[float, float, float], ...] = ()
    jumps: tuple[tuple[float, float], ...] = ()

    def log2_weight(self, at: datetime) -> float:
        """L, the binary logarithm of the weight of an event at that time.

        >>> ArmClock(segments=((0.0, math.inf, 60.0),)).log2_weight(datetime.fromtimestamp(90))
        1.5
        """
        if not self.segments and not self.jumps:
            return 0.0
        time_s = at.timestamp()
        passed = 0.0
        for start, end, half_life_s in self.segments:
            if time_s <= start:
                break
            passed += (min(time_s, end) - start) / half_life_s
        return passed + sum(halvings for start, halvings in self.jumps if time_s >= start)


class Forgetting:
    """The clocks of all arms, from the rows that say how fast they go.

    Without rows nothing is forgotten and every event weighs 1.

    Parameters
    ----------
    half_lives, shifts
        In any order. Raises `ValueError` for half-lives that are not positive and factors that
        are not in (0, 1].

    Examples
    --------
    >>> from datetime import UTC
    >>> day = [datetime(2026, 1, number, tzinfo=UTC) for number in range(1, 9)]
    >>> forgetting = Forgetting([HalfLife(day[0], 86_400.0)], [Shift("a", day[5], 0.25)])
    >>> forgetting.log2_weight("a", day[4]), forgetting.log2_weight("a", day[5])
    (4.0, 7.0)

    """

    def __init__(self, half_lives: Iterable[HalfLife] = (), shifts: Iterable[Shift] = ()) -> None:
        self._plain = ArmClock(_segments(half_lives))
        jumps: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for shift in shifts:
            if not 0 < shift.factor <= 1:
                raise ValueError(f"the factor of a shift must be in (0, 1], got {shift.factor!r}")
            jump = (shift.effective_at.timestamp(), -math.log2(shift.factor))
            jumps[shift.arm].append(jump)
        self._clocks = {
            arm: ArmClock(self._plain.segments, tuple(sorted(own))) for arm, own in jumps.items()
        }

    def clock(self, arm: str) -> ArmClock:
        """One arm's clock."""
        return self._clocks.get(arm, self._plain)

    def log2_weight(self, arm: str, at: datetime) -> float:
        """The binary logarithm of the weight of an event of that arm at that time."""
        return self.clock(arm).log2_weight(at)

    def reading(self, arms: Iterable[str], at: datetime) -> Mapping[str, float]:
        """Each arm's clock at a reader's time, in steps of 1/64: what `Sums.as_of` takes.

        It stands still between two steps, and so do the sums that are read.
        """
        return {arm: math.floor(self.log2_weight(arm, at) * STEPS) / STEPS for arm in arms}


def _segments(half_lives: Iterable[HalfLife]) -> tuple[tuple[float, float, float], ...]:
    rows = sorted(half_lives, key=lambda row: row.effective_at)
    starts = [row.effective_at.timestamp() for row in rows]
    found = []
    for row, start, end in zip(rows, starts, [*starts, math.inf][1:], strict=True):
        if row.half_life_s is None:
            continue
        if not 0 < row.half_life_s < math.inf:
            raise ValueError(f"a half-life must be positive and finite, got {row.half_life_s!r}")
        found.append((start, end, row.half_life_s))
    return tuple(found)


NOTHING_FORGOTTEN = Forgetting()
