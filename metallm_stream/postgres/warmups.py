"""Prior knowledge from files, each in a slot of sums of its own.

Invariant: a name stands for the file that was added last under it, or for nothing; the slot's
epoch grows with every change, so that whoever merges the slots sees it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import orjson
from sqlalchemy import Connection

from metallm_stream.policy import Sums
from metallm_stream.postgres import statements
from metallm_stream.postgres.slots import WARMUP_PREFIX, claim_slot, save_sums


@dataclass(frozen=True, slots=True)
class Warmup:
    """One file of logged outcomes that was added; `observations` by arm, as of then."""

    name: str
    queries: int
    weight: float
    observations: dict[str, float]
    added_at: datetime


def save_warmup(conn: Connection, name: str, sums: Sums, *, queries: int, weight: float) -> None:
    """Add prior knowledge under a name, in place of what had that name."""
    slot = WARMUP_PREFIX + name
    lease = claim_slot(conn, slot)
    conn.execute(statements.CLEAR_SLOT, {"slot": slot})
    newest = sums.as_of({})
    observations = {arm: newest.observations(arm) for arm in sums.arms}
    save_sums(conn, lease, {arm: sums.arm_to_bytes(arm) for arm in sums.arms}, observations)
    fields = {"name": name, "queries": queries, "weight": weight}
    conn.execute(
        statements.SAVE_WARMUP, fields | {"observations": orjson.dumps(observations).decode()}
    )


def remove_warmup(conn: Connection, name: str) -> bool:
    """Take prior knowledge away; whether there was any under that name."""
    if conn.execute(statements.DELETE_WARMUP, {"name": name}).one_or_none() is None:
        return False
    claim_slot(conn, WARMUP_PREFIX + name)
    conn.execute(statements.CLEAR_SLOT, {"slot": WARMUP_PREFIX + name})
    return True


def load_warmups(conn: Connection) -> tuple[Warmup, ...]:
    """All that was added and not removed, oldest first."""
    return tuple(Warmup(*row) for row in conn.execute(statements.LOAD_WARMUPS))
