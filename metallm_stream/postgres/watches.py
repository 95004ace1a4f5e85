"""Watches of each learner, and the shifts that they have led to.

Invariant: of two learners that see one shift, one records it. A stored watch that this version
cannot read, as after a change of version, is no watch: it stops nobody.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from datetime import datetime

import orjson
from sqlalchemy import Connection

from metallm_stream.policy.drift import ArmWatch, Drift
from metallm_stream.postgres import statements
from metallm_stream.postgres.clocks import MARGIN_S

# Between two shifts of one arm.
GAP_S = 60.0


def load_watches(conn: Connection, slot: str) -> dict[str, ArmWatch | None]:
    """A slot's watches by arm; None where one cannot be read."""
    rows = conn.execute(statements.LOAD_WATCHES, {"slot": slot})
    return {arm: read_watch(state) for arm, state in rows}


def load_all_watches(conn: Connection) -> list[ArmWatch]:
    """The watches of all slots, as far as they can be read."""
    found = (read_watch(state) for state in conn.execute(statements.LOAD_ALL_WATCHES).scalars())
    return [watch for watch in found if watch is not None]


def read_watch(state: object) -> ArmWatch | None:
    """The watch that was written as this JSON value, or None if it is not what is written now."""
    names = {field.name for field in fields(ArmWatch)}
    if not isinstance(state, dict) or state.keys() != names:
        return None
    optional = [state[name] for name in ("since_s", "watched_from_s")]
    numbers = [state["mean"], state["recent"], *(value for value in optional if value is not None)]
    counts = [state["learned"], state["seen"]]
    is_right = (
        isinstance(state["detector"], str)
        and isinstance(state["state"], dict)
        and all(_is_number(value) for value in numbers)
        and all(isinstance(value, int) and _is_number(value) and value >= 0 for value in counts)
    )
    return ArmWatch(**state) if is_right else None


def _is_number(value: object) -> bool:
    """Whether it can be reckoned with as a finite float."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def save_watches(conn: Connection, slot: str, watches: Mapping[str, ArmWatch]) -> None:
    """Replace the watches of the given arms."""
    states = [orjson.dumps(asdict(watch)).decode() for watch in watches.values()]
    fields = {"slot": slot, "arms": list(watches), "states": states}
    conn.execute(statements.SAVE_WATCHES, fields)


def record_shift(
    conn: Connection, drift: Drift, *, slot: str, detector: str, factor: float, ageing_s: float
) -> datetime | None:
    """Shorten the arm's memory and let it age; from when on, or None if another learner was first.

    Commit at once: the margin runs from this statement.
    """
    conn.execute(statements.LOCK_SHIFTS)
    row = conn.execute(
        statements.RECORD_SHIFT,
        asdict(drift)
        | {"slot": slot, "detector": detector, "factor": factor}
        | {"ageing_s": ageing_s if ageing_s < math.inf else None}
        | {"margin_s": MARGIN_S, "gap_s": GAP_S},
    ).one_or_none()
    return None if row is None else row.effective_at
