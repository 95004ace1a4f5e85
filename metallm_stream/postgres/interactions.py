"""The interactions of a batch: locked, loaded, saved; and all of them, streamed.

Invariant: from `load_for_update` to the end of its transaction nobody else changes those
interactions, so that of two learners with parts of one query exactly one sees it complete.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from datetime import date
from sys import getsizeof
from types import MappingProxyType

from sqlalchemy import Connection

from metallm_stream.errors import MetallmError
from metallm_stream.join import Interaction
from metallm_stream.postgres import statements
from metallm_stream.postgres.rows import COPY_TYPES, from_row, to_copy, to_json

MAX_LOADED_BYTES = 64 * 1024 * 1024  # as objects they take two to three times as much


class TooMuchError(MetallmError):
    """Several queries together have more than may be loaded at once: take fewer."""


def load_for_update(
    conn: Connection, query_ids: Iterable[str], today: date
) -> dict[str, tuple[date, Interaction | None]]:
    """Lock the queries and read what is known of each, with the day whose partition keeps it.

    A query not seen before belongs to `today` (UTC), whose partition is made if it is missing, and
    has no interaction.
    Locks are taken in one order for everybody: call this once a transaction, with all the ids.
    Raises `TooMuchError` if what is known of several of them is more than `MAX_LOADED_BYTES`.
    """
    wanted = list(dict.fromkeys(query_ids))
    if not wanted:
        return {}
    locked = conn.execute(statements.LOCK_QUERIES, {"query_ids": wanted, "today": today})
    new = set(locked.scalars())
    if new:
        conn.execute(statements.ENSURE_DAY, {"day": today})
    found: dict[str, tuple[date, Interaction | None]] = dict.fromkeys(new, (today, None))
    older = [query_id for query_id in wanted if query_id not in new]
    if older:
        days = {
            row.query_id: row.day
            for row in conn.execute(statements.LOAD_DAYS, {"query_ids": older})
        }
        known = _load(conn, days)
        found |= {query_id: (day, known.get(query_id)) for query_id, day in days.items()}
    return found


def insert_interactions(conn: Connection, rows: Iterable[tuple[date, Interaction]]) -> None:
    """Write interactions of which `load_for_update` has found nothing, at a third of the cost."""
    driver = conn.connection.driver_connection
    assert driver is not None
    with driver.cursor() as cursor, cursor.copy(statements.COPY_INTERACTIONS) as copy:
        copy.set_types(COPY_TYPES)
        for day, interaction in rows:
            copy.write_row(to_copy(day, interaction))


def save_interactions(
    conn: Connection,
    rows: Iterable[tuple[date, Interaction]],
    known: Mapping[str, Interaction] = MappingProxyType({}),
) -> None:
    """Write each interaction, under the day that `load_for_update` gave.

    What `known` says that function gave, by query id, is not written again: a decision is most of a
    row, and a result and a label come later.
    """
    for part in to_json(rows, known):
        conn.execute(statements.SAVE_INTERACTIONS, {"rows": part})


def stream_interactions(conn: Connection, batch: int = 1_000) -> Iterator[Interaction]:
    """All retained interactions in no particular order, at most `batch` in memory at a time."""
    options = {"stream_results": True, "max_row_buffer": batch}
    for row in conn.execute(statements.STREAM_INTERACTIONS, execution_options=options):
        yield from_row(*row)


def _load(conn: Connection, days: dict[str, date]) -> dict[str, Interaction]:
    # The days go along so that the planner leaves out all other partitions.
    wanted = {"days": sorted(set(days.values())), "query_ids": list(days)}
    driver = conn.connection.driver_connection
    assert driver is not None
    known: dict[str, Interaction] = {}
    size = 0
    with (
        driver.cursor() as cursor,
        closing(cursor.stream(statements.LOAD_INTERACTIONS, wanted)) as rows,
    ):
        for row in rows:
            size += sum(getsizeof(value) for value in row)
            if size > MAX_LOADED_BYTES and len(days) > 1:
                raise TooMuchError(f"{len(days)} queries have more than {MAX_LOADED_BYTES} bytes")
            known[row[0]] = from_row(*row)
    return known
