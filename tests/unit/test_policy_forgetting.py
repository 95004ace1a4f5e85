"""Clocks: what an event weighs by its age, and what a reader makes of it."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from metallm_stream.policy import Forgetting, HalfLife, Shift, Sums, Usage, fit, usage_of_call

START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR_S = 3_600.0


def at(hours: float) -> datetime:
    """So many hours after the start."""
    return START + timedelta(hours=hours)


def test_without_rows_every_event_weighs_one() -> None:
    """Nothing is forgotten unless it is asked for."""
    assert Forgetting().log2_weight("a", at(1e6)) == 0.0
    assert Forgetting([HalfLife(START, None)]).log2_weight("a", at(5)) == 0.0


def test_an_event_counts_half_of_one_that_is_a_half_life_younger() -> None:
    """Whenever the reader looks."""
    forgetting = Forgetting([HalfLife(START, HOUR_S)])
    assert forgetting.log2_weight("a", at(3)) - forgetting.log2_weight("a", at(2)) == 1.0
    assert forgetting.log2_weight("a", at(-3)) == 0.0  # before the first row


def test_another_half_life_goes_on_from_where_the_clock_stands() -> None:
    """What was forgotten stays forgotten, and is forgotten at the new pace from then on."""
    rows = [HalfLife(at(4), 2 * HOUR_S), HalfLife(START, HOUR_S), HalfLife(at(8), None)]
    forgetting = Forgetting(rows)
    found = [forgetting.log2_weight("a", at(hours)) for hours in (3, 4, 6, 8, 100)]
    assert found == [3.0, 4.0, 5.0, 6.0, 6.0]


def test_a_shift_shortens_the_memory_of_its_arm_alone() -> None:
    """From the moment it takes effect; factors multiply."""
    forgetting = Forgetting(shifts=[Shift("a", at(1), 0.25), Shift("a", at(2), 0.5)])
    assert [forgetting.log2_weight("a", at(h)) for h in (0.999, 1, 1.999, 2)] == [0, 2, 2, 3]
    assert forgetting.log2_weight("b", at(2)) == 0.0


def test_after_a_shift_memory_is_as_long_as_a_part_of_the_time_since() -> None:
    """An event weighs by the square of the shift's age when it came, whatever was known before."""
    shift = Shift("a", at(1), 0.25, ageing_s=HOUR_S)
    forgetting = Forgetting(shifts=[shift])
    assert [forgetting.log2_weight("a", at(h)) for h in (0.5, 1, 2, 4)] == [0, 2, 4, 6]
    assert forgetting.log2_weight("b", at(4)) == 0.0
    again = Forgetting(shifts=[shift, Shift("a", at(2), 0.5)])
    assert [again.log2_weight("a", at(h)) for h in (0.5, 1, 2, 4)] == [0, 2, 5, 5]


def test_a_row_that_takes_effect_later_changes_no_earlier_weight() -> None:
    """To the bit: what was added once can be taken out again."""
    rows, more = [HalfLife(START, 1_234.5)], [HalfLife(at(7), 99.0)]
    shifts, later = [Shift("a", at(2), 0.3, 777.7)], [Shift("a", at(7), 0.1, 50.0)]
    before, after = Forgetting(rows, shifts), Forgetting(rows + more, shifts + later)
    for hours in np.linspace(-1, 6.999, 50):
        assert before.log2_weight("a", at(hours)) == after.log2_weight("a", at(hours))


def test_a_readers_clock_moves_in_steps() -> None:
    """64 a half-life, so that the sums that are read do not change each second."""
    forgetting = Forgetting([HalfLife(START, HOUR_S)])
    read = [forgetting.reading(["a"], START + timedelta(seconds=s))["a"] for s in range(3_600)]
    assert len(set(read)) == 64
    assert all(0 <= s / HOUR_S - step < 1 / 64 for s, step in enumerate(read))


@pytest.mark.parametrize("half_life_s", [0.0, -1.0, math.inf, math.nan])
def test_refuses_half_lives_that_are_none(half_life_s: float) -> None:
    """A half-life is positive and finite; None is the way to have none."""
    with pytest.raises(ValueError, match="half-life must be positive"):
        Forgetting([HalfLife(START, half_life_s)])


@pytest.mark.parametrize("factor", [0.0, -0.5, 1.5, math.nan])
def test_refuses_factors_that_do_not_shorten(factor: float) -> None:
    """A shift leaves a share of the evidence, and never makes more of it."""
    with pytest.raises(ValueError, match="factor of a shift"):
        Forgetting(shifts=[Shift("a", START, factor)])


@pytest.mark.parametrize("ageing_s", [0.0, -5.0, 0.5, math.nan])
def test_refuses_ageing_that_is_too_fast(ageing_s: float) -> None:
    """Less than a second is no time scale of a stream; infinite is the way to have none."""
    with pytest.raises(ValueError, match="ageing_s of a shift must be at least 1"):
        Forgetting(shifts=[Shift("a", START, 0.5, ageing_s)])


def test_years_at_a_half_life_of_an_hour_neither_overflow_nor_vanish() -> None:
    """One event an hour for five years: the reader sees the last few, as a geometric series."""
    forgetting = Forgetting([HalfLife(START, HOUR_S)])
    hours = np.arange(5 * 365 * 24)
    sums = Sums(1)
    for batch in np.array_split(hours, 100):
        scales = [forgetting.log2_weight("a", at(float(hour))) for hour in batch]
        contexts = np.where(batch % 2, 1.0, -1.0)[:, None]
        sums.add_quality("a", contexts, batch % 2, np.ones(len(batch)), scales)
        for scale in scales:
            sums.add_usage("a", usage_of_call(cost_usd=0.5), scale)
    read = sums.as_of(forgetting.reading(["a"], at(float(hours[-1]))))
    assert read.observations("a") == pytest.approx(2.0, abs=1e-12)
    assert read.usage("a")[Usage.COST_USD] == pytest.approx(1.0, abs=1e-12)
    later = sums.as_of(forgetting.reading(["a"], at(float(hours[-1]) + 10)))
    assert later.observations("a") == pytest.approx(2.0 / 1024, abs=1e-12)
    restored = Sums(1)
    restored.add_from_bytes("a", sums.arm_to_bytes("a"))
    assert restored.difference(sums) == 0.0


def test_an_arm_unused_for_long_is_as_uncertain_as_a_new_one() -> None:
    """The prior never decays, so the fit goes back to it."""
    forgetting = Forgetting([HalfLife(START, HOUR_S)])
    sums = Sums(2)
    sums.add_quality("old", np.eye(2), [1.0, 0.0], [1.0, 1.0], forgetting.log2_weight("old", at(0)))
    scale = forgetting.log2_weight("used", at(1_000))
    sums.add_quality("used", np.eye(2), [0.2, 0.4], [1.0, 1.0], scale)
    read = sums.as_of(forgetting.reading(("old", "used", "new"), at(1_000)))
    found = fit(read, ("old", "used", "new"))
    assert found.observations.tolist() == [0.0, 2.0, 0.0]
    assert found.mean_quality[0] == found.mean_quality[2]
    assert np.array_equal(found.weights[0], found.weights[2])


def test_sums_that_are_read_between_two_steps_are_the_same_to_the_bit() -> None:
    """So is what is fitted to them."""
    forgetting = Forgetting([HalfLife(START, HOUR_S)])
    sums = Sums(2)
    sums.add_quality("a", np.eye(2), [1.0, 0.0], [1.0, 1.0], forgetting.log2_weight("a", at(0.3)))
    read, fitted = set(), set()
    for second in range(0, 180, 10):
        seen = sums.as_of(forgetting.reading(["a"], at(1) + timedelta(seconds=second)))
        found = fit(seen, ["a"])
        read.add(seen.arm_to_bytes("a"))
        fitted.add(found.weights.tobytes() + found.mean_quality.tobytes() + found.roots.tobytes())
    assert len(read) == 4  # 180 s of 3,600 s in 64 steps
    assert len(fitted) == 4


def test_what_is_lighter_than_a_double_can_tell_is_nothing() -> None:
    """And what is heavier does not overflow, in whichever order they come."""
    for scales in ((0.0, 1e6), (1e6, 0.0), (-1e6, 1e6), (1e6, -1e6)):
        sums = Sums(0)
        for scale in scales:
            sums.add_quality("a", np.zeros((1, 0)), [1.0], [1.0], scale)
        assert sums.as_of({"a": 1e6}).observations("a") == 1.0
        assert np.isfinite(sums.as_of({}).gram("a")).all()
    with pytest.raises(ValueError, match="must be finite"):
        sums.add_usage("a", usage_of_call(), math.nan)


def test_readers_whose_clock_is_behind_see_no_event_twice_as_heavy() -> None:
    """The clock of a reader is taken as no earlier than the newest event."""
    sums = Sums(0)
    sums.add_quality("a", np.zeros((1, 0)), [1.0], [1.0], 700.5)
    assert 1.0 <= sums.as_of({"a": 3.0}).observations("a") < 2.0


def test_sums_that_the_first_release_stored_can_be_read() -> None:
    """Layout 1 had no exponent, which is 0, and both 1 and 2 only eleven sums of usage."""
    sums = Sums(1)
    sums.add_quality("a", [[0.5]], [1.0], [1.0])
    sums.add_usage("a", usage_of_call(cost_usd=0.5, latency_s=2.0))
    upper = sums.gram("a")[np.triu_indices(3)]
    values = np.concatenate((upper, sums.usage("a")[:11])).astype("<f8").tobytes()
    for layout, exponent in ((1, b""), (2, struct.pack("<q", 0))):
        restored = Sums(1)
        header = struct.pack("<4sHHI", b"MLSU", layout, 11, 1)
        restored.add_from_bytes("a", header + exponent + values)
        assert restored.difference(sums) == 0.0
    restored.add_from_bytes("a", sums.arm_to_bytes("a"))
    assert restored.observations("a") == 2.0
