"""What an event counts by its age: forward decay, as a clock for each arm.

Invariant: an event's weight depends on its arm, its time and what the clock's rows say up to that
time, and on nothing else. A row that takes effect later changes no earlier weight, so weighted
sums stay sums: order, shards, batches and repetitions change nothing.

An event at time t weighs `2^L(t)`, where the arm's clock L grows by 1 in each half-life, and by
`log2(1/factor)` where a shift has shortened the arm's memory. Nothing decays in place; the
reader divides by `2^L(now)`.

An arm that has shifted may shift again. So its evidence ages from then on: L grows by
`2·log2(1 + age/τ)`, age being the time since its last shift. What was learned a while after the
shift counts a quarter when the arm is twice as old since, so the memory stays about a third of that
age: short at first, and as good as endless once the arm has long been what it is. Uncertainty
grows back meanwhile, so that an arm which fell is tried again by itself.

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
# How evidence of an arm that has shifted ages; at 1 an arm that came back was found later.
_POWER = 2.0


@dataclass(frozen=True, slots=True)
class HalfLife:
    """The half-life of all arms from `effective_at` until the next row, or None: no decay."""

    effective_at: datetime
    half_life_s: float | None


@dataclass(frozen=True, slots=True)
class Shift:
    """From `effective_at`, what one arm has learned before counts only `factor` of itself.

    It ages from then on, with τ = `ageing_s`; infinite: it does not.
    """

    arm: str
    effective_at: datetime
    factor: float
    ageing_s: float = math.inf


@dataclass(frozen=True, slots=True)
class ArmClock:
    """One arm's clock: `segments` of (start, end, half-life) and `jumps` of (time, halvings, τ).

    In ascending order of their times; segments without decay are left out.
    """

    segments: tuple[tuple[float, float, float], ...] = ()
    jumps: tuple[tuple[float, float, float], ...] = ()

    def log2_weight(self, at: datetime) -> float:
        """L, the binary logarithm of the weight of an event at that time, in seconds since 1970.

        >>> ArmClock(segments=((0.0, math.inf, 60.0),)).log2_weight(datetime.fromtimestamp(90))
        1.5
        """
        return self.reading(at.timestamp()) if self.segments or self.jumps else 0.0

    def reading(self, time: float) -> float:
        """L at a time in the clock's own unit.

        >>> ArmClock(jumps=((100.0, 3.0, 50.0),)).reading(150.0)
        5.0
        """
        passed = 0.0
        for start, end, half_life in self.segments:
            if time <= start:
                break
            passed += (min(time, end) - start) / half_life
        ends = [start for start, _, _ in self.jumps[1:]]
        for (start, halvings, ageing), end in zip(self.jumps, [*ends, math.inf], strict=False):
            if time < start:
                break
            passed += halvings + _POWER * math.log2(1.0 + (min(time, end) - start) / ageing)
        return passed


class Forgetting:
    """The clocks of all arms, from the rows that say how fast they go.

    Without rows nothing is forgotten and every event weighs 1.

    Parameters
    ----------
    half_lives, shifts
        In any order. Raises `ValueError` for half-lives that are not positive, factors that are
        not in (0, 1] and ageing of less than a second.

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
        jumps: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for shift in shifts:
            jumps[shift.arm].append(_jump(shift))
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


def _jump(shift: Shift) -> tuple[float, float, float]:
    if not 0 < shift.factor <= 1:
        raise ValueError(f"the factor of a shift must be in (0, 1], got {shift.factor!r}")
    if not shift.ageing_s >= 1:
        raise ValueError(f"ageing_s of a shift must be at least 1, got {shift.ageing_s!r}")
    return shift.effective_at.timestamp(), -math.log2(shift.factor), shift.ageing_s


NOTHING_FORGOTTEN = Forgetting()
