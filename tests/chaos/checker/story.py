"""All that is known of one query by the time, with what was done to the system meanwhile."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

from tests.chaos.checker.history import History, Seen, Violation

AROUND_S = 3.0
_SHOWN = 160


def story(history: History, violation: Violation) -> str:
    """The violation and the history around it, a line a record."""
    lines = sorted(_records(history, violation.query_id))
    times = [at_s for at_s, _ in lines]
    if times:
        first, last = times[0] - AROUND_S, times[-1] + AROUND_S
        lines += [(e.at_s, f"*** {e.what}") for e in history.events if first <= e.at_s <= last]
    else:
        lines += [(event.at_s, f"*** {event.what}") for event in history.events]
    told = [f"{_clock(at_s)}  {text}" for at_s, text in sorted(lines)]
    row = history.rows.get(violation.query_id)
    if violation.query_id:
        told.append(f"in SQL        {_short(row) if row else 'nothing'}")
    head = f"{violation.kind}: {violation.query_id} {violation.message}"
    return "\n".join([head, *(f"    {line}" for line in told)])


def _records(history: History, query_id: str) -> Iterator[tuple[float, str]]:
    for item in history.records:
        if query_id and query_id in (item.query_id, item.key):
            yield item.at_s, f"{_place(item)} {_short(item.value)}"


def _place(item: Seen) -> str:
    return f"{item.topic}[{item.partition}]@{item.offset}{' (bad)' if item.is_bad else ''}"


def _short(value: object) -> str:
    said = json.dumps(value, default=str)
    return said if len(said) <= _SHOWN else f"{said[:_SHOWN]} ..."


def _clock(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%H:%M:%S.%f")[:-3]
