"""What the arms' clocks are made of: half-lives and shifts, each with the time it takes effect.

Invariant: once anything has been weighed, rows are only added, and take effect a margin after they
were written. So an event that was weighed before a row was there lies before the time at which it
takes effect: every learner, retention and every rebuild weigh it alike, without a lock between
them. Before that, one row holds for all times, and changes under a lock.
"""

from __future__ import annotations

import math
from datetime import datetime

from sqlalchemy import Connection

from metallm_stream.policy import Forgetting, HalfLife, Shift
from metallm_stream.postgres import statements

# Longer than a commit takes and than the clocks of one installation lie apart.
MARGIN_S = 10.0


def load_forgetting(conn: Connection) -> Forgetting:
    """The clocks of all arms, as the rows say now: read them in the transaction that weighs."""
    half_lives, shifts = [], []
    for effective_at, half_life_s, arm, factor, ageing_s in conn.execute(statements.LOAD_CLOCKS):
        if arm is None:
            half_lives.append(HalfLife(effective_at, half_life_s))
        else:
            shifts.append(Shift(arm, effective_at, factor, ageing_s or math.inf))
    return Forgetting(half_lives, shifts)


def claim_half_life(conn: Connection, half_life_s: float | None) -> datetime | None:
    """Bring the half-life in force to that of the settings; from when on, if that changes it.

    What was learned before keeps what it has lost so far and goes on at the new pace. Commit at
    once: the margin runs from this statement. Call it before anything else reads the clocks in this
    transaction, since two that have read them would wait for each other.
    """
    if not conn.execute(statements.HAS_WEIGHED).scalar_one():
        conn.execute(statements.LOCK_HALF_LIVES)
    fields = {"half_life_s": half_life_s, "margin_s": MARGIN_S}
    row = conn.execute(statements.CLAIM_HALF_LIFE, fields).one_or_none()
    return None if row is None else row.effective_at
