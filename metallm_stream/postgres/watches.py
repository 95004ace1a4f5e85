"""Watches of each learner, and the shifts that they have led to.

Invariant: of two learners that see one shift, one records it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime

import orjson
from sqlalchemy import Connection

from metallm_stream.policy.drift import ArmWatch, Drift
from metallm_stream.postgres import statements
from metallm_stream.postgres.clocks import MARGIN_S

# Between two shifts of one arm.
GAP_S = 60.0


def load_watches(conn: Connection, slot: str) -> dict[str, ArmWatch]:
    """A slot's watches by arm."""
    rows = conn.execute(statements.LOAD_WATCHES, {"slot": slot})
    return {arm: ArmWatch(**state) for arm, state in rows}


def save_watches(conn: Connection, slot: str, watches: Mapping[str, ArmWatch]) -> None:
    """Replace the watches of the given arms."""
    states = [orjson.dumps(asdict(watch)).decode() for watch in watches.values()]
    fields = {"slot": slot, "arms": list(watches), "states": states}
    conn.execute(statements.SAVE_WATCHES, fields)


def record_shift(
    conn: Connection, drift: Drift, *, slot: str, detector: str, factor: float
) -> datetime | None:
    """Shorten the arm's memory; from when on, or None if another learner was first.

    Commit at once: the margin runs from this statement.
    """
    conn.execute(statements.LOCK_SHIFTS)
    row = conn.execute(
        statements.RECORD_SHIFT,
        asdict(drift)
        | {"slot": slot, "detector": detector, "factor": factor}
        | {"margin_s": MARGIN_S, "gap_s": GAP_S},
    ).one_or_none()
    return None if row is None else row.effective_at
