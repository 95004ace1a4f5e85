"""Decisions with what came of them, streamed for off-policy evaluation.

Invariant: they come in the order in which they were made, and at most a batch is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import orjson
from sqlalchemy import Connection, Row

from metallm_stream.evaluate import Decisions, Logged
from metallm_stream.postgres import statements

BATCH = 5_000


def stream_outcomes(
    conn: Connection,
    *,
    since: datetime | None,
    until: datetime | None,
    task: str | None,
    cost_scale_usd: float,
    latency_scale_s: float,
    batch: int = BATCH,
) -> Iterator[Decisions]:
    """The decisions from `since` to before `until`, of one task or all, that have their result.

    All with this `cost_scale_usd`; `latency_scale_s` is for decisions that did not log theirs.
    """
    found = conn.execute(
        statements.STREAM_OUTCOMES,
        {"since": since, "until": until, "task": task},
        execution_options={"stream_results": True, "max_row_buffer": batch},
    )
    for rows in found.partitions(batch):
        yield Decisions.of([_logged(row, cost_scale_usd, latency_scale_s) for row in rows])


def median_cost_scale_usd(
    conn: Connection, *, since: datetime | None, until: datetime | None, task: str | None
) -> float | None:
    """What half of these decisions divided costs by, or less; None where there is none."""
    chosen = {"since": since, "until": until, "task": task}
    scale: float | None = conn.execute(statements.MEDIAN_COST_SCALE, chosen).scalar()
    return scale


def _logged(row: Row[Any], cost_scale_usd: float, default_latency_scale_s: float) -> Logged:
    """The statement's columns are in the order of the fields; by position they cost a third."""
    values: tuple[Any, ...] = tuple(row)
    *decided, candidates = values[:4]
    *outcome, latency_scale_s = values[4:]
    scales = (cost_scale_usd, latency_scale_s or default_latency_scale_s)
    fields: tuple[Any, ...] = (*decided, orjson.loads(candidates), *outcome, *scales)
    return Logged(*fields)
