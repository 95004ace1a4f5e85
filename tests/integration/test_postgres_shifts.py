"""Shifts in PostgreSQL: what is recorded of one, and what the clocks make of it."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import Engine, text

from metallm_stream.policy import NOTHING_FORGOTTEN
from metallm_stream.policy.drift import ArmWatch, Drift, ageing_s
from metallm_stream.postgres import load_all_watches, load_forgetting, record_shift, save_watches
from tests.records import START

DRIFT = Drift("large", "down", 0.01, -0.3)
WATCH = ArmWatch("adwin", learned=50, watched_from_s=START.timestamp(), seen=600)


def test_a_shift_is_recorded_once_with_the_time_scale_at_which_evidence_ages(
    engine: Engine,
) -> None:
    """The second learner that sees it comes too late; infinite is stored as null."""
    by = {"slot": "0", "detector": "adwin", "factor": 0.25}
    with engine.begin() as conn:
        at = record_shift(conn, DRIFT, ageing_s=60.0, **by)
        assert record_shift(conn, DRIFT, ageing_s=90.0, **by) is None
        assert record_shift(conn, replace(DRIFT, arm="small"), ageing_s=math.inf, **by) is not None
    assert at is not None
    with engine.connect() as conn:
        forgetting = load_forgetting(conn)
    later = [at + timedelta(seconds=seconds) for seconds in (-1, 0, 60, 180)]
    assert [forgetting.log2_weight("large", time) for time in later] == pytest.approx([0, 2, 4, 6])
    assert forgetting.log2_weight("small", at + timedelta(days=1)) == 2.0


def test_shifts_of_earlier_releases_begin_no_ageing(engine: Engine) -> None:
    """They have no time scale, and weigh what they weighed."""
    with engine.begin() as conn:
        conn.execute(
            text("""
                INSERT INTO metallm.shifts (arm, effective_at, factor, slot, detector, direction)
                VALUES ('large', :at, 0.5, '0', 'adwin', 'up')
            """),
            {"at": START},
        )
        forgetting = load_forgetting(conn)
    weights = [forgetting.log2_weight("large", START + timedelta(days=d)) for d in (-1, 0, 400)]
    assert weights == [0.0, 1.0, 1.0]


def test_the_pace_is_that_of_all_learners(engine: Engine) -> None:
    """A watch that cannot be read counts nothing, and stops nobody."""
    with engine.begin() as conn:
        assert load_forgetting(conn).clock("large") == NOTHING_FORGOTTEN.clock("large")
        for slot in ("0", "1"):
            save_watches(conn, slot, {"large": WATCH, "small": replace(WATCH, seen=300)})
        conn.execute(text("INSERT INTO metallm.watches VALUES ('2', 'large', '{\"seen\": 9}')"))
        watches = load_all_watches(conn)
    assert ageing_s(watches, START + timedelta(hours=1)) == pytest.approx(3_600 * 100 / 1_800)
