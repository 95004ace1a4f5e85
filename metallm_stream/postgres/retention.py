"""Partitions by day: made before they are needed, archived before they are dropped.

Invariant: archive + fold(retained interactions) is the same before and after a day is dropped.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date
from itertools import islice

from sqlalchemy import Connection

from metallm_stream.join import Interaction, change
from metallm_stream.policy import NOTHING_FORGOTTEN, Forgetting, Sums
from metallm_stream.postgres import statements
from metallm_stream.postgres.clocks import load_forgetting
from metallm_stream.postgres.interactions import stream
from metallm_stream.postgres.slots import ARCHIVE_SLOT, claim_slot, load_slot_sums, save_sums

BATCH = 1_000


def ensure_day(conn: Connection, day: date) -> bool:
    """Make the partition of a UTC day unless it exists; whether it was made.

    Locks out nobody. Call it at start and when the day changes, for that day and the next.
    """
    return bool(conn.execute(statements.ENSURE_DAY, {"day": day}).scalar_one())


def drop_days_before(
    conn: Connection, day: date, encoder: str, dimensions: int
) -> tuple[date, ...]:
    """Fold the days before `day` into the archive and drop them; the days dropped.

    All in the caller's transaction, which holds up learners that touch those days. Feedback that
    comes later finds no query and is kept as feedback for an unknown one. Dead letters of those
    days go too. Raises `ConfigurationError` if the archive is of other dimensions.
    """
    days = tuple(conn.execute(statements.DAYS_BEFORE, {"day": day}).scalars())
    conn.execute(statements.DELETE_DEAD_LETTERS, {"day": day})
    if not days:
        return ()
    conn.execute(statements.FORGET_QUERIES, {"day": day})
    lease = claim_slot(conn, ARCHIVE_SLOT)
    archive = Sums(dimensions)
    for arm, raw in load_slot_sums(conn, ARCHIVE_SLOT).items():
        archive.add_from_bytes(arm, raw)
    forgetting = load_forgetting(conn)
    for dropped in days:
        rows = stream(conn, statements.STREAM_DAY, {"day": dropped}, BATCH)
        archive.merge(fold(rows, encoder, dimensions, forgetting))
        conn.execute(statements.DROP_DAY, {"day": dropped})
    newest = archive.as_of({})
    save_sums(
        conn,
        lease,
        {arm: archive.arm_to_bytes(arm) for arm in archive.arms},
        {arm: newest.observations(arm) for arm in archive.arms},
    )
    return days


def fold(
    rows: Iterable[Interaction],
    encoder: str,
    dimensions: int,
    forgetting: Forgetting = NOTHING_FORGOTTEN,
) -> Sums:
    """What interactions add up to, `BATCH` of them in memory at a time."""
    total = Sums(dimensions)
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        total.merge(change(((None, item) for item in batch), encoder, dimensions, forgetting))
    return total
