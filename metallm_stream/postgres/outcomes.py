"""Decisions with what came of them, streamed for off-policy evaluation.

Invariant: they come in the order in which they were made, and at most a batch is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from sqlalchemy import Connection

from metallm_stream.evaluate import Decisions, Logged
from metallm_stream.postgres import statements

BATCH = 5_000


def stream_outcomes(
    conn: Connection,
    *,
    since: datetime | None,
    until: datetime | None,
    task: str | None,
    latency_scale_s: float,
    batch: int = BATCH,
) -> Iterator[Decisions]:
    """The decisions from `since` to before `until`, of one task or all, that have their result.

    `latency_scale_s` is for decisions that did not log theirs.
    """
    found = conn.execute(
        statements.STREAM_OUTCOMES,
        {"since": since, "until": until, "task": task},
        execution_options={"stream_results": True, "max_row_buffer": batch},
    )
    for rows in found.mappings().partitions(batch):
        yield Decisions.of(
            [
                Logged(**row | {"latency_scale_s": row["latency_scale_s"] or latency_scale_s})
                for row in map(dict, rows)
            ]
        )
