"""Where the learner has read to, saved in the transaction that saves what it learned.

Invariant: an offset moves only under the epoch of whoever claimed the partition last, only from
the offset that this owner last saw, and never back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection

from metallm_stream.errors import Fenced
from metallm_stream.postgres import statements


@dataclass(frozen=True, slots=True)
class Position:
    """The right to advance one partition from `next_offset`, as of `epoch`.

    `topic_id` is that of the topic whose offset this is, if it is known.
    """

    topic: str
    partition: int
    epoch: int
    next_offset: int
    topic_id: str | None = None


@dataclass(frozen=True, slots=True)
class Advance:
    """One partition's step; `high_watermark` is the log's end, if known."""

    position: Position
    new_next_offset: int
    high_watermark: int | None = None

    @property
    def after(self) -> Position:
        """The position to advance from next time, once the transaction has committed."""
        return replace(self.position, next_offset=self.new_next_offset)


def claim_partition(
    conn: Connection,
    topic: str,
    partition: int,
    low_watermark: int = 0,
    topic_id: str | None = None,
) -> Position:
    """Take over a partition: its former owner is fenced. A new one starts at `low_watermark`.

    The stored offset is returned as it is, also where the log no longer reaches back to it: what
    retention deleted before it was learned must not be skipped silently. So is the id of the topic
    that it was stored for; where none was, and where nothing was read yet, it becomes `topic_id`.
    """
    row = conn.execute(
        statements.CLAIM_PARTITION,
        {
            "topic": topic,
            "partition": partition,
            "low_watermark": low_watermark,
            "topic_id": topic_id,
        },
    ).one()
    return Position(*row)


def advance(conn: Connection, steps: Sequence[Advance]) -> None:
    """Move every partition by compare-and-swap on its epoch and offset.

    Raises `Fenced`, naming the partitions, if any could not be moved: roll back and restart.
    """
    if not steps:
        return
    moved = conn.execute(
        statements.ADVANCE,
        {
            "topics": [step.position.topic for step in steps],
            "partitions": [step.position.partition for step in steps],
            "epochs": [step.position.epoch for step in steps],
            "next_offsets": [step.position.next_offset for step in steps],
            "new_next_offsets": [step.new_next_offset for step in steps],
            "high_watermarks": [step.high_watermark for step in steps],
        },
    )
    wanted = {(step.position.topic, step.position.partition) for step in steps}
    held = {(topic, partition) for topic, partition in moved}
    if wanted - held:
        names = ", ".join(f"{topic}[{partition}]" for topic, partition in sorted(wanted - held))
        raise Fenced(f"another learner has taken over {names}")


def load_offsets(conn: Connection) -> dict[tuple[str, int], int]:
    """The first unread offset of every partition ever claimed, by topic and partition."""
    rows = conn.execute(statements.LOAD_OFFSETS)
    return {(topic, partition): next_offset for topic, partition, next_offset in rows}
