"""Partitions by day: made before they are needed, archived before they are dropped.

Invariant: archive + fold(retained interactions) is the same before and after each transaction here,
and none takes longer than a few tenths of a second, whatever a day holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain, islice
from typing import Any

from sqlalchemy import Connection, Row

from metallm_stream.join import Interaction, change
from metallm_stream.policy import NOTHING_FORGOTTEN, Forgetting, Sums
from metallm_stream.postgres import statements
from metallm_stream.postgres.clocks import load_forgetting
from metallm_stream.postgres.rows import from_row
from metallm_stream.postgres.slots import (
    ARCHIVE_SLOT,
    SlotLease,
    claim_slot,
    load_slot_sums,
    save_arms,
)

BATCH = 1_000
MOST = 2_000  # a few tenths of a second
AT_ONCE = 250  # of those are in memory, and may be large


@dataclass(frozen=True)
class Dropped:
    """What one transaction of retention did: interactions archived, days dropped."""

    interactions: int
    days: tuple[date, ...]
    has_more: bool


def ensure_day(conn: Connection, day: date) -> bool:
    """Make the partition of a UTC day unless it exists; whether it was made.

    Locks out nobody.

    Raises
    ------
    sqlalchemy.exc.OperationalError
        If somebody locks the table for half a second, as `ANALYZE` and `CREATE INDEX` do.
    """
    conn.execute(statements.WAIT_SHORTLY)
    return bool(conn.execute(statements.ENSURE_DAY, {"day": day}).scalar_one())


def drop_days_before(
    conn: Connection, day: date, encoder: str, dimensions: int, most: int = MOST
) -> Dropped:
    """Archive up to `most` interactions of the days before `day`, and drop the days that are empty.

    All in the caller's transaction, which waits for no learner: what one has in work is left for
    the next time, and everything where another one is at it. Feedback that comes later finds no
    query and is kept as feedback for an unknown one. Dead letters of those days go too.

    Raises
    ------
    ConfigurationError
        If the archive is of other dimensions.
    sqlalchemy.exc.OperationalError
        If somebody reads an empty day for half a second; then nothing has changed.
    """
    if not conn.execute(statements.TRY_RETENTION_LOCK).scalar_one():
        return Dropped(0, (), has_more=False)
    conn.execute(statements.DELETE_DEAD_LETTERS, {"day": day})
    lease = claim_slot(conn, ARCHIVE_SLOT)
    old = conn.execute(statements.FORGET_QUERIES, {"day": day, "most": most}).all()
    if old:
        _archive(conn, lease, old, encoder, dimensions)
    days: tuple[date, ...] = ()
    if len(old) < most:
        days = tuple(conn.execute(statements.EMPTY_DAYS, {"day": day}).scalars())
        conn.execute(statements.WAIT_SHORTLY)
        for empty in days:
            conn.execute(statements.DROP_DAY, {"day": empty})
    return Dropped(len(old), days, has_more=len(old) == most)


def _archive(
    conn: Connection, lease: SlotLease, old: Sequence[Row[Any]], encoder: str, dimensions: int
) -> None:
    """Move what these queries have taught from their rows to the archive."""
    archive = Sums.from_bytes(load_slot_sums(conn, ARCHIVE_SLOT), dimensions)
    forgetting = load_forgetting(conn)
    for first in range(0, len(old), AT_ONCE):
        some = old[first : first + AT_ONCE]
        ids = [row.query_id for row in some]
        wanted = {"days": sorted({row.day for row in some}), "query_ids": ids}
        rows = conn.execute(statements.DELETE_INTERACTIONS, wanted)
        archive.merge(fold((from_row(*row) for row in rows), encoder, dimensions, forgetting))
    save_arms(conn, lease, archive, archive.arms)


def fold(
    rows: Iterable[Interaction],
    encoder: str,
    dimensions: int,
    forgetting: Forgetting = NOTHING_FORGOTTEN,
) -> Sums:
    """What interactions add up to, one of them in memory at a time and the contexts of `BATCH`."""
    total = Sums(dimensions)
    remaining = iter(rows)
    for first in remaining:
        batch = chain([first], islice(remaining, BATCH - 1))
        total.merge(change(((None, item) for item in batch), encoder, dimensions, forgetting))
    return total
