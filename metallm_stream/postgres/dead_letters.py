"""Records that the learner could not read, kept beside the offsets that pass over them.

Invariant: a record has one row however often it is replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection

from metallm_stream.postgres import statements
from metallm_stream.postgres.rows import storable

MAX_BYTES = 65_536
LARGEST_BIGINT = 2**63 - 1
LARGEST_INTEGER = 2**31 - 1


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One unreadable record and why; `at` is when it was met (aware UTC).

    The texts may hold anything, since they can come from the record's headers. Of `key` and
    `value` the first 64 KB each are kept.
    """

    topic: str
    partition: int
    offset: int
    service: str
    at: datetime
    reason: str
    key: bytes | None = None
    value: bytes | None = None


def save_dead_letters(conn: Connection, letters: Sequence[DeadLetter]) -> None:
    """Keep the records; those that are already there stay as they are."""
    if not letters:
        return
    conn.execute(
        statements.SAVE_DEAD_LETTERS,
        {
            "topic": [storable(item.topic) for item in letters],
            "partition": [min(item.partition, LARGEST_INTEGER) for item in letters],
            "offset": [min(item.offset, LARGEST_BIGINT) for item in letters],
            "service": [storable(item.service) for item in letters],
            "at": [item.at for item in letters],
            "reason": [storable(item.reason) for item in letters],
            "key": [_cut(item.key) for item in letters],
            "value": [_cut(item.value) for item in letters],
            "value_bytes": [None if item.value is None else len(item.value) for item in letters],
            "truncated": [_too_long(item.key) or _too_long(item.value) for item in letters],
        },
    )


def _cut(raw: bytes | None) -> bytes | None:
    return None if raw is None else raw[:MAX_BYTES]


def _too_long(raw: bytes | None) -> bool:
    return raw is not None and len(raw) > MAX_BYTES
