"""The policy of River's: its state, and the lessons that it was taught, in order.

Invariant: state = base + the lessons after it as they were learned, in the order of their numbers.
What has become of a lesson since stands beside it, and is in no state until it is applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection

from metallm_stream.join import Reward
from metallm_stream.postgres import river_statements as statements


@dataclass(frozen=True, slots=True)
class RiverRow:
    """The stored policy; `state` holds the lessons 1 to `lessons`, `base` 1 to `base_lessons`."""

    slot: str
    policy: str
    parameters: str
    river_version: str
    encoder: str
    lessons: int
    state: bytes
    base_lessons: int
    base: bytes


@dataclass(frozen=True, slots=True)
class StoredLesson:
    """A lesson as it was learned; where it was corrected since, `now` is what it is (or None)."""

    number: int
    query_id: str
    learned: Reward
    is_corrected: bool
    now: Reward | None


def claim_river(conn: Connection, row: RiverRow) -> RiverRow:
    """The stored policy; this one, with its state as the base, where there was none."""
    fields = {name: getattr(row, name) for name in ("slot", "policy", "parameters", "encoder")}
    version = {"river_version": row.river_version}
    conn.execute(statements.CLAIM_RIVER, fields | version | {"state": row.state})
    return load_river(conn) or row


def load_river(conn: Connection) -> RiverRow | None:
    """The stored policy, if there is one."""
    found = conn.execute(statements.LOAD_RIVER).one_or_none()
    return None if found is None else RiverRow(*found)


def lock_river(conn: Connection) -> RiverRow | None:
    """The stored policy, which nobody else changes before this transaction ends."""
    found = conn.execute(statements.LOCK_RIVER).one_or_none()
    return None if found is None else RiverRow(*found)


def save_river(conn: Connection, state: bytes, lessons: int) -> None:
    """Replace the state; call it only under the lease of the slot, as for the sums."""
    conn.execute(statements.SAVE_RIVER, {"state": state, "lessons": lessons})


def split_lessons(
    conn: Connection, changed: Mapping[str, Reward | None]
) -> tuple[dict[str, Reward], dict[str, Reward | None]]:
    """Rewards by query, parted into those that are new and those that correct a lesson."""
    if not changed:
        return {}, {}
    known = set(conn.execute(statements.KNOWN_LESSONS, {"query_ids": list(changed)}).scalars())
    new = {query_id: item for query_id, item in changed.items() if item and query_id not in known}
    return new, {query_id: item for query_id, item in changed.items() if query_id in known}


def save_lessons(conn: Connection, after: int, lessons: Mapping[str, Reward]) -> None:
    """Add lessons with the numbers that follow."""
    if lessons:
        conn.execute(
            statements.SAVE_LESSONS,
            {
                "numbers": list(range(after + 1, after + 1 + len(lessons))),
                "query_ids": list(lessons),
                "arms": [item.arm for item in lessons.values()],
                "contexts": [item.context for item in lessons.values()],
                "rewards": [item.reward for item in lessons.values()],
            },
        )


def correct_lessons(conn: Connection, changed: Mapping[str, Reward | None]) -> None:
    """Note what lessons have become; one that is again what was learned is no correction."""
    if changed:
        conn.execute(
            statements.CORRECT_LESSONS,
            {
                "query_ids": list(changed),
                "arms": [item and item.arm for item in changed.values()],
                "rewards": [item and item.reward for item in changed.values()],
            },
        )


def load_lessons(conn: Connection) -> list[StoredLesson]:
    """All lessons that are kept, in order."""
    return _lessons(conn.execute(statements.LOAD_LESSONS).all())


def forgotten_lessons(conn: Connection) -> list[StoredLesson]:
    """The first lessons, up to one whose interaction is still retained."""
    return _lessons(conn.execute(statements.FORGOTTEN_LESSONS).all())


def rebase_river(conn: Connection, base: bytes, base_lessons: int) -> None:
    """Keep the state after `base_lessons` lessons, and drop these."""
    conn.execute(statements.REBASE_RIVER, {"base": base, "base_lessons": base_lessons})
    conn.execute(statements.DELETE_LESSONS, {"number": base_lessons})


def replace_river(conn: Connection, row: RiverRow) -> None:
    """Put another policy or state in place, in which all corrections are applied."""
    fields = ("policy", "parameters", "river_version", "state", "base")
    conn.execute(statements.REPLACE_RIVER, {name: getattr(row, name) for name in fields})
    conn.execute(statements.DELETE_WITHDRAWN)
    conn.execute(statements.APPLY_CORRECTIONS)


def _lessons(rows: Sequence[Sequence[Any]]) -> list[StoredLesson]:
    found = []
    for number, query_id, arm, context, reward, is_corrected, arm_now, reward_now in rows:
        now = None if reward_now is None else Reward(arm_now, bytes(context), reward_now)
        learned = Reward(arm, bytes(context), reward)
        found.append(StoredLesson(number, query_id, learned, bool(is_corrected), now))
    return found
